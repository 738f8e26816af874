package drainpack

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// parseArgs reads the arguments of a plugin, fills in defaults and validates. An error names the fields.
func parseArgs[T any, P interface {
	*T
	SetDefaults()
	Validate() error
}](plugin string, object runtime.Object) (T, error) {
	var args T
	switch given := object.(type) {
	case nil:
	case *runtime.Unknown:
		if err := yaml.UnmarshalStrict(given.Raw, &args); err != nil {
			return args, fmt.Errorf("arguments of plugin %s: %w", plugin, err)
		}
	default:
		return args, fmt.Errorf("arguments of plugin %s: want a %sArgs, got %T", plugin, plugin, object)
	}
	P(&args).SetDefaults()
	if err := P(&args).Validate(); err != nil {
		return args, fmt.Errorf("arguments of plugin %s: %w", plugin, err)
	}
	return args, nil
}
