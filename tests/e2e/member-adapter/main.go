// Command member-adapter serves custom.metrics.k8s.io and metrics.k8s.io of a member cluster from its Prometheus. It stands
// where prometheus-adapter stands in Karmada's tutorials, on the libraries that prometheus-adapter is built on and with
// its flags; what would be its configuration file are constants here.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/common"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	basecmd "sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	customopenapi "sigs.k8s.io/custom-metrics-apiserver/pkg/generated/openapi/custommetrics"
	resourceapi "sigs.k8s.io/metrics-server/pkg/api"
	resourceopenapi "sigs.k8s.io/metrics-server/pkg/api/generated/openapi"
)

// adapter is the server and the flags of its own. Those of serving, authentication and authorization are the library's.
type adapter struct {
	basecmd.AdapterBase

	prometheusURL  string
	relistInterval time.Duration
}

func main() {
	logs.InitLogs()
	defer logs.FlushLogs()
	if err := run(genericapiserver.SetupSignalContext(), os.Args[1:]); err != nil {
		klog.ErrorS(err, "Cannot serve metrics")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

// run serves both APIs until the context ends. It starts without Prometheus, but not without the API server.
func run(ctx context.Context, args []string) error {
	a := &adapter{AdapterBase: basecmd.AdapterBase{Name: "member-adapter"}}
	flags := a.Flags()
	flags.StringVar(&a.prometheusURL, "prometheus-url", "http://localhost:9090", "URL of the member's Prometheus.")
	flags.DurationVar(&a.relistInterval, "metrics-relist-interval", 10*time.Minute,
		"How often Prometheus is asked which metrics exist, and how far back it looks.")
	logs.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}

	client, err := promapi.NewClient(promapi.Config{Address: a.prometheusURL})
	if err != nil {
		return fmt.Errorf("client of Prometheus: %w", err)
	}
	prometheus := promv1.NewAPI(client)
	if err := a.addCustomMetrics(ctx, prometheus); err != nil {
		return fmt.Errorf("custom metrics: %w", err)
	}
	if err := a.addResourceMetrics(ctx, prometheus); err != nil {
		return fmt.Errorf("resource metrics: %w", err)
	}
	return a.Run(ctx)
}

func (a *adapter) addCustomMetrics(ctx context.Context, prometheus promv1.API) error {
	mapper, err := a.RESTMapper()
	if err != nil {
		return err
	}
	objects, err := a.DynamicClient()
	if err != nil {
		return err
	}
	metrics := newCustomMetrics(prometheus, mapper, objects)
	go metrics.relist(ctx, a.relistInterval)
	a.WithCustomMetrics(metrics)
	return nil
}

// addResourceMetrics makes the server and adds metrics.k8s.io to it, which the library of custom metrics knows nothing of.
func (a *adapter) addResourceMetrics(ctx context.Context, prometheus promv1.API) error {
	namer := openapi.NewDefinitionNamer(apiserver.Scheme, resourceapi.Scheme)
	a.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	a.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	server, err := a.Server()
	if err != nil {
		return err
	}
	informers, err := a.Informers()
	if err != nil {
		return err
	}
	config, err := a.ClientConfig()
	if err != nil {
		return err
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	running := func(options *metav1.ListOptions) { options.FieldSelector = "status.phase=Running" }
	pods := metadatainformer.NewFilteredSharedInformerFactory(client, 0, metav1.NamespaceAll, running).
		ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	go pods.Informer().RunWithContext(ctx)
	nodes := informers.Core().V1().Nodes()
	return resourceapi.Install(resourceMetrics{prometheus}, pods.Lister(), nodes.Lister(), server.GenericAPIServer, nil)
}

// definitions are the OpenAPI definitions of both APIs.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := customopenapi.GetOpenAPIDefinitions(ref)
	maps.Copy(all, resourceopenapi.GetOpenAPIDefinitions(ref))
	return all
}
