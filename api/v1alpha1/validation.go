package v1alpha1

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns what is wrong with a defaulted policy, but for its calendar, which package calendar checks as it
// compiles it.
func Validate(p *ScalingPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateBacklog(&p.Spec.Backlog, spec.Child("backlog"))
	errs = append(errs, validateTarget(p, spec.Child("target"))...)
	if hold := p.Spec.Outage.HoldFor.Duration; hold < 0 {
		errs = append(errs, field.Invalid(spec.Child("outage", "holdFor"), hold.String(), "must not be negative"))
	}
	return errs
}

// maxStabilization is the longest that a HorizontalPodAutoscaler allows, too.
const maxStabilization = time.Hour

// maxDuration bounds what is multiplied with numbers of messages.
const maxDuration = 168 * time.Hour

func validateTarget(p *ScalingPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	t := &p.Spec.Target
	if t.MessagesPerReplica < 1 {
		errs = append(errs, field.Invalid(path.Child("messagesPerReplica"), t.MessagesPerReplica, "must be at least 1"))
	}
	if *t.MaxReplicas < 0 {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), *t.MaxReplicas, "must not be negative"))
	}
	if d := t.DrainWithin; d != nil && (d.Duration < time.Second || d.Duration > maxDuration) {
		errs = append(errs, field.Invalid(path.Child("drainWithin"), d.Duration.String(), "must be from 1s to 168h"))
	}
	if d := t.ServiceTime; d != nil && (d.Duration <= 0 || d.Duration > maxDuration) {
		errs = append(errs, field.Invalid(path.Child("serviceTime"), d.Duration.String(), "must be more than 0s and at most 168h"))
	}
	switch {
	case t.ServiceTime != nil && t.DrainWithin == nil:
		errs = append(errs, field.Required(path.Child("drainWithin"), "serviceTime is used by drainWithin only"))
	case t.DrainWithin != nil && t.ServiceTime == nil && !countsFinishedWork(&p.Spec.Backlog):
		errs = append(errs, field.Required(path.Child("serviceTime"), "drainWithin must know it, and this backlog does not count "+
			"finished work: state it, or give rabbitmq its managementURI"))
	}
	if w := t.ScaleInStabilization; w != nil && (w.Duration < 0 || w.Duration > maxStabilization) {
		errs = append(errs, field.Invalid(path.Child("scaleInStabilization"), w.Duration.String(), "must be from 0s to 1h"))
	}
	if g := t.MaxReplicasGroup; g != nil {
		path := path.Child("maxReplicasGroup")
		if g.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "name the group"))
		}
		if g.MaxReplicas < 0 {
			errs = append(errs, field.Invalid(path.Child("maxReplicas"), g.MaxReplicas, "must not be negative"))
		}
		if g.Weight < 1 || g.Weight > 1000 {
			errs = append(errs, field.Invalid(path.Child("weight"), g.Weight, "must be from 1 to 1000"))
		}
	}
	return errs
}

func countsFinishedWork(b *Backlog) bool {
	return b.Kafka != nil || b.RabbitMQ != nil && b.RabbitMQ.ManagementURI != nil
}

func validateBacklog(b *Backlog, path *field.Path) field.ErrorList {
	const sources = "set exactly one source: rabbitmq, kafka or prometheus"
	switch r, k, p := b.RabbitMQ, b.Kafka, b.Prometheus; {
	case r == nil && k == nil && p == nil:
		return field.ErrorList{field.Required(path, sources)}
	case r != nil && k == nil && p == nil:
		return validateRabbitMQ(r, path.Child("rabbitmq"))
	case r == nil && k != nil && p == nil:
		return validateKafka(k, path.Child("kafka"))
	case r == nil && k == nil && p != nil:
		return validatePrometheus(p, path.Child("prometheus"))
	default:
		return field.ErrorList{field.Forbidden(path, sources)}
	}
}

func validateRabbitMQ(r *RabbitMQBacklog, path *field.Path) field.ErrorList {
	errs := ValidateValueSource(&r.URI, path.Child("uri"))
	for name, value := range map[string]*ValueSource{
		"username": r.Username, "password": r.Password, "managementURI": r.ManagementURI,
	} {
		if value != nil {
			errs = append(errs, ValidateValueSource(value, path.Child(name))...)
		}
	}
	errs = append(errs, validateTLS(r.TLS, path.Child("tls"))...)
	if (r.Queue == "") == (len(r.Queues) == 0) {
		errs = append(errs, field.Invalid(path.Child("queue"), r.Queue, "set either queue or queues"))
	}
	errs = append(errs, validateSet(r.Queues, "queue", path.Child("queues"))...)
	errs = append(errs, validateEnum(r.OnMissingQueue, path.Child("onMissingQueue"), MissingQueueZero, MissingQueueError)...)
	if r.OtherConsumers < 0 {
		errs = append(errs, field.Invalid(path.Child("otherConsumers"), r.OtherConsumers, "must not be negative"))
	}
	return errs
}

func validateKafka(k *KafkaBacklog, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(k.Brokers) == 0 {
		errs = append(errs, field.Required(path.Child("brokers"), "name a broker, host:port"))
	}
	errs = append(errs, validateSet(k.Brokers, "broker", path.Child("brokers"))...)
	if k.ConsumerGroup == "" {
		errs = append(errs, field.Required(path.Child("consumerGroup"), "name the group that the workers consume in"))
	}
	if len(k.Topics) == 0 {
		errs = append(errs, field.Required(path.Child("topics"), "name a topic"))
	}
	errs = append(errs, validateSet(k.Topics, "topic", path.Child("topics"))...)
	errs = append(errs,
		validateEnum(k.OnMissingOffset, path.Child("onMissingOffset"), MissingOffsetEarliest, MissingOffsetLatest)...)
	errs = append(errs, validateEnum(k.IsolationLevel, path.Child("isolationLevel"), ReadUncommitted, ReadCommitted)...)
	if sasl := k.SASL; sasl != nil {
		path := path.Child("sasl")
		errs = append(errs, validateEnum(sasl.Mechanism, path.Child("mechanism"), SASLPlain, SASLScramSHA256, SASLScramSHA512)...)
		errs = append(errs, ValidateValueSource(&sasl.Username, path.Child("username"))...)
		errs = append(errs, ValidateValueSource(&sasl.Password, path.Child("password"))...)
	}
	return append(errs, validateTLS(k.TLS, path.Child("tls"))...)
}

func validatePrometheus(p *PrometheusBacklog, path *field.Path) field.ErrorList {
	errs := ValidateValueSource(&p.URL, path.Child("url"))
	if p.Query == "" {
		errs = append(errs, field.Required(path.Child("query"), "write a query whose value is the unfinished work"))
	}
	errs = append(errs, validateEnum(p.OnNoData, path.Child("onNoData"), NoDataZero, NoDataError)...)
	if p.BearerToken != nil {
		errs = append(errs, ValidateValueSource(p.BearerToken, path.Child("bearerToken"))...)
	}
	for i := range p.Headers {
		header, path := &p.Headers[i], path.Child("headers").Index(i)
		same := func(other HTTPHeader) bool { return strings.EqualFold(other.Name, header.Name) }
		switch {
		case !headerName.MatchString(header.Name):
			errs = append(errs, field.Invalid(path.Child("name"), header.Name, "must be of letters, digits and -"))
		case strings.EqualFold(header.Name, "Host"), strings.EqualFold(header.Name, "Authorization") && p.BearerToken != nil:
			errs = append(errs, field.Forbidden(path.Child("name"), "Host is that of url, and Authorization is made of bearerToken"))
		case slices.ContainsFunc(p.Headers[:i], same):
			errs = append(errs, field.Duplicate(path.Child("name"), header.Name))
		}
		errs = append(errs, ValidateValueSource(&header.Value, path.Child("value"))...)
	}
	for i, parameter := range p.QueryParameters {
		path := path.Child("queryParameters").Index(i).Child("name")
		switch {
		case parameter.Name == "":
			errs = append(errs, field.Required(path, "name a parameter"))
		case slices.Contains([]string{"query", "time", "timeout"}, parameter.Name):
			errs = append(errs, field.Forbidden(path, parameter.Name+" is the scaler's own"))
		}
	}
	return append(errs, validateTLS(p.TLS, path.Child("tls"))...)
}

// headerName is that of an HTTP header.
var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,128}$`)

func validateTLS(t *TLS, path *field.Path) field.ErrorList {
	if t == nil {
		return nil
	}
	var errs field.ErrorList
	for name, value := range map[string]*ValueSource{"ca": t.CA, "certificate": t.Certificate, "key": t.Key} {
		if value != nil {
			errs = append(errs, ValidateValueSource(value, path.Child(name))...)
		}
	}
	if (t.Certificate == nil) != (t.Key == nil) {
		errs = append(errs, field.Required(path.Child("key"), "set certificate and key together"))
	}
	return errs
}

// ValidateValueSource returns what is wrong with a value source.
func ValidateValueSource(v *ValueSource, path *field.Path) field.ErrorList {
	set := 0
	for _, is := range []bool{v.Value != "", v.SecretKeyRef != nil, v.ConfigMapKeyRef != nil, v.Env != "", v.File != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		return field.ErrorList{field.Required(path, "set exactly one of value, secretKeyRef, configMapKeyRef, env and file")}
	}
	if ref := v.SecretKeyRef; ref != nil && (ref.Name == "" || ref.Key == "") {
		return field.ErrorList{field.Required(path.Child("secretKeyRef"), "name a Secret and a key of it")}
	}
	if ref := v.ConfigMapKeyRef; ref != nil && (ref.Name == "" || ref.Key == "") {
		return field.ErrorList{field.Required(path.Child("configMapKeyRef"), "name a ConfigMap and a key of it")}
	}
	return nil
}

// validateSet rejects empty names and names that stand twice.
func validateSet(names []string, what string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		switch {
		case name == "":
			errs = append(errs, field.Required(path.Index(i), "name a "+what))
		case slices.Contains(names[:i], name):
			errs = append(errs, field.Duplicate(path.Index(i), name))
		}
	}
	return errs
}

func validateEnum[T ~string](value T, path *field.Path, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, allowed)}
}

// QueueNames are the queues of a source, whichever field names them.
func (r *RabbitMQBacklog) QueueNames() []string {
	if r.Queue != "" {
		return []string{r.Queue}
	}
	return r.Queues
}
