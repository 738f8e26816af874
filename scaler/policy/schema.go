package policy

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/manifests/crd"
)

// rules check a policy and fill in its defaults by the custom resource definition, with the API server's own code, so that a policy is
// held to the same rules wherever it comes from.
type rules struct {
	structural *structuralschema.Structural
	schema     schemavalidation.SchemaValidator
	cel        *cel.Validator
}

// apiRules are those of the API server; fileRules also allow values that only policies read from files may use.
var (
	apiRules  = sync.OnceValue(func() *rules { return mustLoadRules(false) })
	fileRules = sync.OnceValue(func() *rules { return mustLoadRules(true) })
)

// onlyFromFiles begins the message of the rule that refuses such values.
const onlyFromFiles = "env and file are for policies read from files"

func mustLoadRules(files bool) *rules {
	r, err := loadRules(files)
	if err != nil {
		panic(fmt.Sprintf("the definition of ScalingPolicies that is built in: %v", err)) // a test reads it
	}
	return r
}

func loadRules(files bool) (*rules, error) {
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(crd.ScalingPolicy, &definition); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(definition.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Name == v1alpha1.GroupVersion.Version
	})
	if at < 0 {
		return nil, fmt.Errorf("it has no version %s", v1alpha1.GroupVersion.Version)
	}
	var props apiextensions.JSONSchemaProps
	err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
		definition.Spec.Versions[at].Schema.OpenAPIV3Schema, &props, nil)
	if err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(&props)
	if err != nil {
		return nil, err
	}
	if files {
		allowFiles := structuralschema.Visitor{Structural: func(s *structuralschema.Structural) bool {
			before := len(s.XValidations)
			s.XValidations = slices.DeleteFunc(s.XValidations, func(rule apiextensionsv1.ValidationRule) bool {
				return strings.HasPrefix(rule.Message, onlyFromFiles)
			})
			return len(s.XValidations) != before
		}}
		allowFiles.Visit(structural)
	}
	schema, _, err := schemavalidation.NewSchemaValidator(&props)
	return &rules{structural, schema, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, err
}

// complete checks a policy as the API server does when it is created with strict field validation, and returns it with defaults. Where
// there are errors the policy has its name at most. It changes object. Errors hold no value of the policy's that may be a secret.
func (r *rules) complete(object map[string]any) (*v1alpha1.ScalingPolicy, field.ErrorList) {
	delete(object, "status") // nobody but the scaler writes it
	meta, _, unknown, err := objectmeta.GetObjectMetaWithOptions(object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil || meta == nil {
		return &v1alpha1.ScalingPolicy{}, field.ErrorList{field.Invalid(field.NewPath("metadata"), field.OmitValueType{}, "must be the metadata of an object")}
	}
	named := &v1alpha1.ScalingPolicy{ObjectMeta: *meta}
	var errs field.ErrorList
	unknown = append(unknown, pruning.PruneWithOptions(object, r.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	for _, path := range unknown {
		errs = append(errs, unknownField(path))
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, r.structural)
	defaulting.Default(object, r.structural)
	errs = append(errs, validation.ValidateObjectMetaAccessor(meta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	errs = append(errs, inWords(schemavalidation.ValidateCustomResource(nil, object, r.schema))...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, r.structural, object)...)
	if len(errs) > 0 { // CEL is for objects of the right form
		return named, errs
	}
	if errs, _ = r.cel.Validate(context.Background(), nil, r.structural, object, nil, celconfig.RuntimeCELCostBudget); len(errs) > 0 {
		for _, e := range errs {
			e.BadValue = field.OmitValueType{} // it is the name of a type
		}
		return named, errs
	}
	policy := &v1alpha1.ScalingPolicy{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, policy); err != nil {
		return named, field.ErrorList{field.InternalError(field.NewPath("spec"), errors.New("it fits the schema and can't be read"))}
	}
	return policy, nil
}

// patternsInWords say what the schema's patterns ask for.
var patternsInWords = map[string]string{
	`^[^\p{C}\p{Zl}\p{Zp}]+$`:         "must be printable characters on one line",
	`^[a-zA-Z0-9._-]+$`:               "must be letters, digits, dots, dashes and underscores",
	`^[A-Za-z0-9-]+$`:                 "must be letters, digits and dashes",
	`^([01][0-9]|2[0-3]):[0-5][0-9]$`: "must be a time HH:MM from 00:00 to 23:59, in quotes",
	`^([A-Za-z]{3,9} )?(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)( \+([1-9]|[12][0-9]|3[01]))?$`: endInWords + `; "Mon 06:00" the Monday after it`,
	`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)( \+([1-9]|[12][0-9]|3[01]))?$`:                  endInWords,
	`^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`:                                   "must be a date: 2026-12-24",
	`^(0|[1-9][0-9]{0,2}|1000)%$`:                                                           "must be a number of replicas from 0 to 100000, or a percentage from \"0%\" to \"1000%\"",
	`^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`:                                "must be a date: 2026-12-24, or 12-24 for every year",
}

const endInWords = `must be a time HH:MM from 00:00 to 24:00, in quotes; at or before from it is on the next day; "06:00 +2" is two days after the start`

// inWords replaces patterns in errors by what they ask for.
func inWords(errs field.ErrorList) field.ErrorList {
	for _, e := range errs {
		_, pattern, found := strings.Cut(e.Detail, "should match '")
		if words, known := patternsInWords[strings.TrimSuffix(pattern, "'")]; found && known {
			e.Detail = words
		}
	}
	return errs
}

// completeTyped is complete for a policy that was read before. It does not change it.
func (r *rules) completeTyped(p *v1alpha1.ScalingPolicy) (*v1alpha1.ScalingPolicy, field.ErrorList) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
	if err != nil {
		return p, field.ErrorList{field.InternalError(nil, err)}
	}
	return r.complete(object)
}

// fieldName is what a field may be called in an error. The "name" of an unknown field may be a URI with a password, where braces were
// written around a value.
var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}(\[\d+\])*$`)

func unknownField(path string) *field.Error {
	steps := strings.Split(path, ".")
	for i, step := range steps {
		if !fieldName.MatchString(step) {
			return field.Forbidden(pathOf(steps[:i]), "it has an unknown field, whose name is no name of a field")
		}
	}
	return field.Forbidden(pathOf(steps), "unknown field")
}

// pathOf is a path of names that may hold indexes.
func pathOf(steps []string) *field.Path {
	if len(steps) == 0 {
		return nil
	}
	return field.NewPath(steps[0], steps[1:]...)
}
