package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/klog/v2"
)

// query is an instant query whose answer is a value for each set of labels.
func query(ctx context.Context, prometheus promv1.API, promQL string, at time.Time) (model.Vector, error) {
	value, warnings, err := prometheus.Query(ctx, promQL, at)
	if err != nil {
		return nil, fmt.Errorf("query Prometheus for %s: %w", promQL, err)
	}
	if len(warnings) > 0 {
		klog.InfoS("Prometheus warns", "query", promQL, "warnings", warnings)
	}
	vector, isVector := value.(model.Vector)
	if !isVector {
		return nil, fmt.Errorf("query Prometheus for %s: the answer is a %s, not a vector", promQL, value.Type())
	}
	return vector, nil
}

// oneOf is the matcher of series whose label has one of the values.
func oneOf(label string, values ...string) string {
	return fmt.Sprintf("%s=~%q", label, alternatives(values))
}

func alternatives(values []string) string {
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = regexp.QuoteMeta(value)
	}
	return strings.Join(quoted, "|")
}

// matchers are the requirements of a selector as PromQL. There is no such thing for greater and less.
func matchers(selector labels.Selector) ([]string, error) {
	requirements, _ := selector.Requirements()
	matchers := make([]string, 0, len(requirements))
	for _, requirement := range requirements {
		label, values := requirement.Key(), requirement.Values().UnsortedList()
		switch operator := requirement.Operator(); operator {
		case selection.Equals, selection.DoubleEquals, selection.In:
			matchers = append(matchers, oneOf(label, values...))
		case selection.NotEquals, selection.NotIn:
			matchers = append(matchers, fmt.Sprintf("%s!~%q", label, alternatives(values)))
		case selection.Exists:
			matchers = append(matchers, label+`!=""`)
		case selection.DoesNotExist:
			matchers = append(matchers, label+`=""`)
		default:
			return nil, fmt.Errorf("operator %q has no matcher in PromQL", operator)
		}
	}
	return matchers, nil
}

// quantity is a value to the thousandth, and zero where Prometheus answers with not a number.
func quantity(value model.SampleValue, format resource.Format) resource.Quantity {
	if math.IsNaN(float64(value)) {
		value = 0
	}
	return *resource.NewMilliQuantity(int64(value*1000), format)
}
