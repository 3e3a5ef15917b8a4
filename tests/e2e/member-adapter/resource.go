package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/metrics"
	resourceapi "sigs.k8s.io/metrics-server/pkg/api"
)

// What prometheus-adapter has as resourceRules, for the metrics that a kubelet serves under /metrics/resource.
// ../prometheus-adapter.yaml is the same for prometheus-adapter.
const (
	containerCPU    = "sum by (namespace,pod,container) (irate(container_cpu_usage_seconds_total{%s}[1m]))"
	containerMemory = "sum by (namespace,pod,container) (container_memory_working_set_bytes{%s})"
	nodeCPU         = "sum by (node) (irate(node_cpu_usage_seconds_total{%s}[1m]))"
	nodeMemory      = "sum by (node) (node_memory_working_set_bytes{%s})"
	rateWindow      = time.Minute
)

// resourceMetrics provides what containers and nodes use. One of which CPU or memory is not known is left out, and so
// are all while Prometheus does not answer: as with prometheus-adapter, that is no error.
type resourceMetrics struct {
	prometheus promv1.API
}

var _ resourceapi.MetricsGetter = resourceMetrics{}

// user is what uses CPU and memory: a container, or a node.
type user struct {
	namespace, pod, container, node string
}

// GetPodMetrics implements resourceapi.PodMetricsGetter.
func (m resourceMetrics) GetPodMetrics(pods ...*metav1.PartialObjectMetadata) ([]metrics.PodMetrics, error) {
	answer := make([]metrics.PodMetrics, 0, len(pods))
	if len(pods) == 0 {
		return answer, nil
	}
	namespaces, names := sets.New[string](), sets.New[string]()
	for _, pod := range pods {
		namespaces.Insert(pod.Namespace)
		names.Insert(pod.Name)
	}
	now := metav1.Now()
	conditions := fmt.Sprintf(`container!="",%s,%s`,
		oneOf("namespace", sets.List(namespaces)...), oneOf("pod", sets.List(names)...))
	containers := make(map[types.NamespacedName][]metrics.ContainerMetrics)
	for user, usage := range m.usage(containerCPU, containerMemory, conditions, now.Time) {
		pod := types.NamespacedName{Namespace: user.namespace, Name: user.pod}
		containers[pod] = append(containers[pod], metrics.ContainerMetrics{Name: user.container, Usage: usage})
	}

	for _, pod := range pods {
		ofPod, known := containers[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
		if !known {
			continue
		}
		slices.SortFunc(ofPod, func(a, b metrics.ContainerMetrics) int { return cmp.Compare(a.Name, b.Name) })
		answer = append(answer, metrics.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels, CreationTimestamp: now,
			},
			Timestamp:  now,
			Window:     metav1.Duration{Duration: rateWindow},
			Containers: ofPod,
		})
	}
	return answer, nil
}

// GetNodeMetrics implements resourceapi.NodeMetricsGetter.
func (m resourceMetrics) GetNodeMetrics(nodes ...*corev1.Node) ([]metrics.NodeMetrics, error) {
	answer := make([]metrics.NodeMetrics, 0, len(nodes))
	if len(nodes) == 0 {
		return answer, nil
	}
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = node.Name
	}
	now := metav1.Now()
	usages := m.usage(nodeCPU, nodeMemory, oneOf("node", names...), now.Time)

	for _, node := range nodes {
		usage, known := usages[user{node: node.Name}]
		if !known {
			continue
		}
		answer = append(answer, metrics.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: now},
			Timestamp:  now,
			Window:     metav1.Duration{Duration: rateWindow},
			Usage:      usage,
		})
	}
	return answer, nil
}

// usage is what each user uses, by one query for CPU and one for memory. The library gives no context: a request that
// Prometheus does not answer ends for its client by the server's time limit.
func (m resourceMetrics) usage(cpuQuery, memoryQuery, conditions string, at time.Time) map[user]corev1.ResourceList {
	cpu, err := query(context.Background(), m.prometheus, fmt.Sprintf(cpuQuery, conditions), at)
	if err != nil {
		klog.ErrorS(err, "Cannot fetch the use of CPU")
		return nil
	}
	memory, err := query(context.Background(), m.prometheus, fmt.Sprintf(memoryQuery, conditions), at)
	if err != nil {
		klog.ErrorS(err, "Cannot fetch the use of memory")
		return nil
	}
	memoryOf := make(map[user]model.SampleValue, len(memory))
	for _, sample := range memory {
		memoryOf[userOf(sample)] = sample.Value
	}
	usage := make(map[user]corev1.ResourceList, len(cpu))
	for _, sample := range cpu {
		if memory, known := memoryOf[userOf(sample)]; known {
			usage[userOf(sample)] = corev1.ResourceList{
				corev1.ResourceCPU:    quantity(sample.Value, resource.DecimalSI),
				corev1.ResourceMemory: quantity(memory, resource.BinarySI),
			}
		}
	}
	return usage
}

func userOf(sample *model.Sample) user {
	return user{
		namespace: string(sample.Metric["namespace"]),
		pod:       string(sample.Metric["pod"]),
		container: string(sample.Metric["container"]),
		node:      string(sample.Metric["node"]),
	}
}
