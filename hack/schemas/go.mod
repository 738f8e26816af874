// Pins of what the chart's objects of other projects are checked against: their custom resource definitions. Nothing of it is compiled.
module github.com/ebbtide-dev/ebbtide/hack/schemas

go 1.26.0

require (
	github.com/aws/karpenter-provider-aws v1.14.0
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
