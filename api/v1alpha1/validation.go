package v1alpha1

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns what is wrong with a defaulted policy, but for its calendar, which package calendar checks as it
// compiles it.
func Validate(p *ScalingPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateBacklog(&p.Spec.Backlog, spec.Child("backlog"))
	target := spec.Child("target")
	if n := p.Spec.Target.MessagesPerReplica; n < 1 {
		errs = append(errs, field.Invalid(target.Child("messagesPerReplica"), n, "must be at least 1"))
	}
	if n := *p.Spec.Target.MaxReplicas; n < 0 {
		errs = append(errs, field.Invalid(target.Child("maxReplicas"), n, "must not be negative"))
	}
	if hold := p.Spec.Outage.HoldFor.Duration; hold < 0 {
		errs = append(errs, field.Invalid(spec.Child("outage", "holdFor"), hold.String(), "must not be negative"))
	}
	return errs
}

func validateBacklog(b *Backlog, path *field.Path) field.ErrorList {
	if b.RabbitMQ == nil {
		return field.ErrorList{field.Required(path, "set a source: rabbitmq")}
	}
	return validateRabbitMQ(b.RabbitMQ, path.Child("rabbitmq"))
}

func validateRabbitMQ(r *RabbitMQBacklog, path *field.Path) field.ErrorList {
	errs := validateValueSource(&r.URI, path.Child("uri"))
	if r.ManagementURI != nil {
		errs = append(errs, validateValueSource(r.ManagementURI, path.Child("managementURI"))...)
	}
	if (r.Queue == "") == (len(r.Queues) == 0) {
		errs = append(errs, field.Invalid(path.Child("queue"), r.Queue, "set either queue or queues"))
	}
	seen := map[string]bool{}
	for i, queue := range r.Queues {
		switch at := path.Child("queues").Index(i); {
		case queue == "":
			errs = append(errs, field.Required(at, "name a queue"))
		case seen[queue]:
			errs = append(errs, field.Duplicate(at, queue))
		}
		seen[queue] = true
	}
	switch r.OnMissingQueue {
	case MissingQueueZero, MissingQueueError:
	default:
		errs = append(errs, field.NotSupported(path.Child("onMissingQueue"), r.OnMissingQueue,
			[]MissingQueue{MissingQueueZero, MissingQueueError}))
	}
	if r.OtherConsumers < 0 {
		errs = append(errs, field.Invalid(path.Child("otherConsumers"), r.OtherConsumers, "must not be negative"))
	}
	return errs
}

func validateValueSource(v *ValueSource, path *field.Path) field.ErrorList {
	set := 0
	for _, is := range []bool{v.Value != "", v.SecretKeyRef != nil, v.Env != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		return field.ErrorList{field.Required(path, "set exactly one of value, secretKeyRef and env")}
	}
	if ref := v.SecretKeyRef; ref != nil && (ref.Name == "" || ref.Key == "") {
		return field.ErrorList{field.Required(path.Child("secretKeyRef"), "name a Secret and a key of it")}
	}
	return nil
}

// QueueNames are the queues of a source, whichever field names them.
func (r *RabbitMQBacklog) QueueNames() []string {
	if r.Queue != "" {
		return []string{r.Queue}
	}
	return r.Queues
}
