package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"
)

// The one rule of Karmada's tutorial "FederatedHPA scales with custom metrics": the rate of each counter that has a
// namespace is a metric of every resource that a label of the counter is the name of. ../prometheus-adapter.yaml is the
// same for prometheus-adapter.
const (
	seriesSelector = `{namespace!="",__name__!~"^container_.*"}`
	counterSuffix  = "_total"
	rateQuery      = "sum by (%[1]s) (irate(%[2]s%[3]s{%[4]s}[1m]))"
)

// rootScoped are the resources without a namespace that metrics are known to describe.
var rootScoped = []string{"namespaces", "nodes", "persistentvolumes"}

// customMetrics provides the metrics that the rule finds in Prometheus, and fails as prometheus-adapter does.
type customMetrics struct {
	prometheus promv1.API
	mapper     meta.RESTMapper
	objects    dynamic.Interface
	known      atomic.Pointer[map[provider.CustomMetricInfo]string]
}

var _ provider.CustomMetricsProvider = &customMetrics{}

func newCustomMetrics(prometheus promv1.API, mapper meta.RESTMapper, objects dynamic.Interface) *customMetrics {
	m := &customMetrics{prometheus: prometheus, mapper: mapper, objects: objects}
	m.known.Store(&map[provider.CustomMetricInfo]string{})
	return m
}

// relist asks Prometheus at each interval which metrics exist, until the context ends. While it does not answer, those
// known before stay.
func (m *customMetrics) relist(ctx context.Context, interval time.Duration) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		now := time.Now()
		series, _, err := m.prometheus.Series(ctx, []string{seriesSelector}, now.Add(-interval), now)
		if err != nil {
			klog.ErrorS(err, "Cannot list the metrics that Prometheus has")
			return
		}
		known := m.described(series)
		m.known.Store(&known)
	}, interval)
}

// described are the metrics of the series, each with the label that names the object it describes.
func (m *customMetrics) described(series []model.LabelSet) map[provider.CustomMetricInfo]string {
	known := make(map[provider.CustomMetricInfo]string)
	for _, one := range series {
		metric, isCounter := strings.CutSuffix(string(one[model.MetricNameLabel]), counterSuffix)
		if !isCounter {
			continue
		}
		for label := range one {
			described, err := m.mapper.ResourceFor(schema.GroupVersionResource{Resource: string(label)})
			if err != nil {
				continue // most labels are no resource's name
			}
			known[provider.CustomMetricInfo{
				GroupResource: described.GroupResource(),
				Namespaced:    !slices.Contains(rootScoped, described.Resource),
				Metric:        metric,
			}] = string(label)
		}
	}
	return known
}

// ListAllMetrics implements provider.CustomMetricsProvider.
func (m *customMetrics) ListAllMetrics() []provider.CustomMetricInfo {
	known := *m.known.Load()
	metrics := make([]provider.CustomMetricInfo, 0, len(known))
	for metric := range known {
		metrics = append(metrics, metric)
	}
	slices.SortFunc(metrics, func(a, b provider.CustomMetricInfo) int { return strings.Compare(a.String(), b.String()) })
	return metrics
}

// GetMetricByName implements provider.CustomMetricsProvider.
func (m *customMetrics) GetMetricByName(ctx context.Context, name types.NamespacedName, info provider.CustomMetricInfo,
	selector labels.Selector) (*custom_metrics.MetricValue, error) {
	values, err := m.values(ctx, name.Namespace, []string{name.Name}, info, selector)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	return &values[0], nil
}

// GetMetricBySelector implements provider.CustomMetricsProvider.
func (m *customMetrics) GetMetricBySelector(ctx context.Context, namespace string, objects labels.Selector,
	info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValueList, error) {
	names, err := helpers.ListObjectNames(m.mapper, m.objects, namespace, objects, info)
	if err != nil {
		klog.ErrorS(err, "Cannot list the objects that a metric describes", "metric", info)
		return nil, apierrors.NewInternalError(errors.New("unable to list matching resources"))
	}
	values, err := m.values(ctx, namespace, names, info, selector)
	if err != nil {
		return nil, err
	}
	return &custom_metrics.MetricValueList{Items: values}, nil
}

// values are the metric of each of the named objects that has it, in the order of the names, with one query for all.
func (m *customMetrics) values(ctx context.Context, namespace string, names []string, info provider.CustomMetricInfo,
	selector labels.Selector) ([]custom_metrics.MetricValue, error) {
	promQL, label, err := m.promQL(namespace, names, info, selector)
	if err != nil {
		klog.V(2).InfoS("No query for a metric", "metric", info, "reason", err)
		return nil, provider.NewMetricNotFoundError(info.GroupResource, info.Metric)
	}
	now := metav1.Now()
	vector, err := query(ctx, m.prometheus, promQL, now.Time)
	if err != nil {
		klog.ErrorS(err, "Cannot fetch a metric", "metric", info)
		return nil, apierrors.NewInternalError(errors.New("unable to fetch metrics"))
	}
	found := make(map[string]model.SampleValue, len(vector))
	for _, sample := range vector {
		found[string(sample.Metric[model.LabelName(label)])] = sample.Value
	}

	metric := custom_metrics.MetricIdentifier{Name: info.Metric}
	if !selector.Empty() {
		if metric.Selector, err = metav1.ParseToLabelSelector(selector.String()); err != nil {
			return nil, err
		}
	}
	values := make([]custom_metrics.MetricValue, 0, len(names))
	for _, name := range names {
		value, has := found[name]
		if !has {
			continue
		}
		object, err := helpers.ReferenceFor(m.mapper, types.NamespacedName{Namespace: namespace, Name: name}, info)
		if err != nil {
			return nil, err
		}
		values = append(values, custom_metrics.MetricValue{
			DescribedObject: object,
			Metric:          metric,
			Timestamp:       now,
			Value:           quantity(value, resource.DecimalSI),
		})
	}
	return values, nil
}

// promQL is the query for a metric of the named objects, and the label that tells them apart in its answer.
func (m *customMetrics) promQL(namespace string, names []string, info provider.CustomMetricInfo,
	selector labels.Selector) (promQL, label string, err error) {
	normalized, _, err := info.Normalized(m.mapper)
	if err != nil {
		return "", "", err
	}
	label, isKnown := (*m.known.Load())[normalized]
	if !isKnown {
		return "", "", errors.New("Prometheus does not have it")
	}
	if len(names) == 0 {
		return "", "", errors.New("there are no such objects")
	}
	conditions, err := matchers(selector)
	if err != nil {
		return "", "", err
	}
	if namespace != "" {
		conditions = append(conditions, oneOf("namespace", namespace))
	}
	conditions = append(conditions, oneOf(label, names...))
	return fmt.Sprintf(rateQuery, label, info.Metric, counterSuffix, strings.Join(conditions, ",")), label, nil
}
