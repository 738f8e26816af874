package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ScalingPolicy determines the number of replicas (unfinished Jobs of a ScaledJob, pods of a ScaledObject) for a queue,
// within limits that follow a weekly calendar. A KEDA external trigger in the same namespace refers to it by name. An
// edit does not touch the ScaledJob, so no running job restarts.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=spol,categories=ebbtide
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Period",type=string,JSONPath=`.status.current.period`
// +kubebuilder:printcolumn:name="Target",type=integer,JSONPath=`.status.lastDecision.target`
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.lastDecision.ready`
// +kubebuilder:printcolumn:name="In flight",type=integer,JSONPath=`.status.lastDecision.inFlight`
// +kubebuilder:printcolumn:name="Constraint",type=string,JSONPath=`.status.lastDecision.constraint`
// +kubebuilder:printcolumn:name="Next change",type=string,JSONPath=`.status.nextChange.time`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ScalingPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ScalingPolicySpec   `json:"spec"`
	Status ScalingPolicyStatus `json:"status,omitempty"`
}

// ScalingPolicyList is a list of ScalingPolicy.
//
// +kubebuilder:object:root=true
type ScalingPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ScalingPolicy `json:"items"`
}

// ScalingPolicySpec is the desired behavior.
//
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.drainWithin) || has(self.target.serviceTime) || has(self.backlog.kafka) || has(self.backlog.rabbitmq) && has(self.backlog.rabbitmq.managementURI)",message="drainWithin must know the service time, and this backlog does not count finished work: set target.serviceTime, or rabbitmq.managementURI"
type ScalingPolicySpec struct {
	// Backlog is the source of waiting work. Exactly one must be set.
	Backlog Backlog `json:"backlog"`
	// Target turns the backlog into a number of replicas.
	// +kubebuilder:default={}
	// +optional
	Target Target `json:"target,omitempty"`
	// Calendar sets floors, idle reserves and caps by the time of the week. Without it, only target.maxReplicas limits the
	// target.
	// +optional
	Calendar *Calendar `json:"calendar,omitempty"`
	// Outage is the behavior while the backlog can't be read.
	// +kubebuilder:default={}
	// +optional
	Outage Outage `json:"outage,omitempty"`
}

// Backlog names one source of waiting work.
//
// +kubebuilder:validation:XValidation:rule="[has(self.rabbitmq), has(self.kafka), has(self.prometheus)].exists_one(set, set)",message="set exactly one source: rabbitmq, kafka or prometheus"
type Backlog struct {
	// RabbitMQ counts the messages and consumers of one or more queues of a broker.
	// +optional
	RabbitMQ *RabbitMQBacklog `json:"rabbitmq,omitempty"`
	// Kafka counts the messages that a consumer group has not committed yet.
	// +optional
	Kafka *KafkaBacklog `json:"kafka,omitempty"`
	// Prometheus uses the value of an instant query, for all other sources.
	// +optional
	Prometheus *PrometheusBacklog `json:"prometheus,omitempty"`
}

// MissingQueue says what a queue that does not exist means.
// +kubebuilder:validation:Enum=Zero;Error
type MissingQueue string

const (
	// MissingQueueZero counts a missing queue as empty: a producer that has not declared it yet has sent nothing.
	MissingQueueZero MissingQueue = "Zero"
	// MissingQueueError reports a missing queue as a failure of the trigger.
	MissingQueueError MissingQueue = "Error"
)

// RabbitMQBacklog counts messages of RabbitMQ queues.
//
// +kubebuilder:validation:XValidation:rule="[has(self.queue), has(self.queues), has(self.queuePattern)].exists_one(set, set)",message="set exactly one of queue, queues and queuePattern"
// +kubebuilder:validation:XValidation:rule="!has(self.queuePattern) || has(self.managementURI)",message="queuePattern needs managementURI: the broker's management API lists the queues"
type RabbitMQBacklog struct {
	// URI of the broker, amqp:// or amqps://. The path is the virtual host. Several hosts of one cluster are separated by
	// commas (amqp://user:password@one:5672,two:5672/vhost) and tried in turn.
	URI ValueSource `json:"uri"`
	// Username overrides that of the URI, for brokers whose address and credentials are stored separately.
	// +optional
	Username *ValueSource `json:"username,omitempty"`
	// Password overrides that of the URI.
	// +optional
	Password *ValueSource `json:"password,omitempty"`
	// TLS of amqps:// and https://. Default: trust the system's certificate authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// ManagementURI of the broker's management API, http:// or https://. Without credentials in it, those of uri are used.
	// Without the API, all consumers count as busy, service times are not observed, and streams and queues with a single
	// active consumer (which get at most one replica) are not detected.
	// +optional
	ManagementURI *ValueSource `json:"managementURI,omitempty"`
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255",message="RabbitMQ's names have at most 255 bytes"
	// Queue is the name of the queue, of at most 255 bytes. Set exactly one of queue, queues and queuePattern.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	// +optional
	Queue string `json:"queue,omitempty"`
	// +kubebuilder:validation:XValidation:rule="self.all(name, size(bytes(name)) <= 255)",message="RabbitMQ's names have at most 255 bytes"
	// Queues are names of queues. Their messages and consumers are added up.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	// +listType=set
	// +optional
	Queues []string `json:"queues,omitempty"`
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255",message="RabbitMQ's names have at most 255 bytes"
	// QueuePattern matches names of queues of the virtual host. Their messages and consumers are added up. `*` matches any
	// text. It requires managementURI, which lists the queues; a new queue counts within seconds. More than 100 matching
	// queues are an error, and so is a stream.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	// +optional
	QueuePattern string `json:"queuePattern,omitempty"`
	// OnMissingQueue is the meaning of a queue that does not exist, or of a pattern without matches. Default: Zero.
	// +kubebuilder:default=Zero
	// +optional
	OnMissingQueue MissingQueue `json:"onMissingQueue,omitempty"`
	// OtherConsumers is the number of consumers of these queues that do not belong to the scaled workload. It is subtracted
	// from the consumers. Default: 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	OtherConsumers int32 `json:"otherConsumers,omitempty"`
}

// QueueNames are the queues of a source, whichever field names them.
func (r *RabbitMQBacklog) QueueNames() []string {
	if r.Queue != "" {
		return []string{r.Queue}
	}
	return r.Queues
}

// KafkaBacklog counts the messages that a consumer group has not committed.
type KafkaBacklog struct {
	// Brokers are the bootstrap brokers, host:port each.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +listType=set
	Brokers []string `json:"brokers"`
	// ConsumerGroup is the group of the workers.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	ConsumerGroup string `json:"consumerGroup"`
	// Topics whose lag is added up.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=249
	// +kubebuilder:validation:items:Pattern=`^[a-zA-Z0-9._-]+$`
	// +listType=set
	Topics []string `json:"topics"`
	// OnMissingOffset is where a group without a committed offset starts, like auto.offset.reset of its consumers. Earliest
	// counts all messages of a partition. Latest counts none of them, but one message while the group has committed no
	// offset or has messages in a partition without a commit, so that a worker starts and commits. An offset that does not
	// exist in the partition, as after a topic was recreated, counts as missing. Default: Earliest.
	// +kubebuilder:default=Earliest
	// +optional
	OnMissingOffset MissingOffset `json:"onMissingOffset,omitempty"`
	// IsolationLevel is that of the group's consumers (isolation.level). ReadCommitted excludes messages of open and
	// aborted transactions. Default: ReadUncommitted.
	// +kubebuilder:default=ReadUncommitted
	// +optional
	IsolationLevel IsolationLevel `json:"isolationLevel,omitempty"`
	// SASL credentials, if the brokers require them.
	// +optional
	SASL *KafkaSASL `json:"sasl,omitempty"`
	// TLS to the brokers. Unset: plain text. An empty object trusts the system's certificate authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// MissingOffset says what a partition without a committed offset counts.
// +kubebuilder:validation:Enum=Earliest;Latest
type MissingOffset string

const (
	// MissingOffsetEarliest counts all messages of the partition.
	MissingOffsetEarliest MissingOffset = "Earliest"
	// MissingOffsetLatest counts none.
	MissingOffsetLatest MissingOffset = "Latest"
)

// IsolationLevel says which messages consumers get.
// +kubebuilder:validation:Enum=ReadUncommitted;ReadCommitted
type IsolationLevel string

const (
	// ReadUncommitted gets all messages.
	ReadUncommitted IsolationLevel = "ReadUncommitted"
	// ReadCommitted gets those of no transaction and of committed ones.
	ReadCommitted IsolationLevel = "ReadCommitted"
)

// KafkaSASL are credentials for Kafka brokers.
type KafkaSASL struct {
	// Mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism SASLMechanism `json:"mechanism"`
	Username  ValueSource   `json:"username"`
	Password  ValueSource   `json:"password"`
}

// SASLMechanism is how a client proves who it is.
// +kubebuilder:validation:Enum=PLAIN;SCRAM-SHA-256;SCRAM-SHA-512
type SASLMechanism string

// The mechanisms.
const (
	SASLPlain       SASLMechanism = "PLAIN"
	SASLScramSHA256 SASLMechanism = "SCRAM-SHA-256"
	SASLScramSHA512 SASLMechanism = "SCRAM-SHA-512"
)

// PrometheusBacklog is the value of an instant query.
//
// +kubebuilder:validation:XValidation:rule="!has(self.bearerToken) || !has(self.headers) || !self.headers.exists(h, h.name.lowerAscii() == 'authorization')",message="headers: Authorization comes from bearerToken"
// +kubebuilder:validation:XValidation:rule="!has(self.headers) || self.headers.all(h, self.headers.exists_one(other, other.name.lowerAscii() == h.name.lowerAscii()))",message="headers: the case of a name does not make another header of it"
type PrometheusBacklog struct {
	// URL of the server, as for a data source: https://prometheus.example:9090. Credentials in it are used as basic
	// authentication.
	URL ValueSource `json:"url"`
	// Query for the unfinished work: what waits and what is in progress. The samples of a vector are added up.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query"`
	// OnNoData is the meaning of an empty answer: Zero or Error. Default: Error.
	// +kubebuilder:default=Error
	// +optional
	OnNoData NoData `json:"onNoData,omitempty"`
	// BearerToken is sent only to the server of url.
	// +optional
	BearerToken *ValueSource `json:"bearerToken,omitempty"`
	// Headers of each request, sent only to the server of url: for example X-Scope-OrgID for a tenant of Mimir or Thanos.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Headers []HTTPHeader `json:"headers,omitempty"`
	// QueryParameters are added to the URL of each query: for example dedup or partial_response of Thanos.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	QueryParameters []QueryParameter `json:"queryParameters,omitempty"`
	// TLS of https://. Default: trust the system's certificate authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// HTTPHeader is a header of requests.
type HTTPHeader struct {
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii() != 'host'",message="Host is that of url"
	// Name of the header. Host is not allowed, and Authorization only without bearerToken and without credentials in url.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]+$`
	Name string `json:"name"`
	// Value of the header.
	Value ValueSource `json:"value"`
}

// QueryParameter is a parameter of a URL.
type QueryParameter struct {
	// +kubebuilder:validation:XValidation:rule="!(self in ['query', 'time', 'timeout'])",message="query, time and timeout are the scaler's own"
	// Name of the parameter: not query, time or timeout.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// Value of the parameter.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Value string `json:"value,omitempty"`
}

// NoData says what an answer without samples means.
// +kubebuilder:validation:Enum=Zero;Error
type NoData string

const (
	// NoDataZero counts it as no work.
	NoDataZero NoData = "Zero"
	// NoDataError reports it as a failure: a metric that vanished is not a queue that is empty.
	NoDataError NoData = "Error"
)

// TLS says whom to trust and who to be.
//
// +kubebuilder:validation:XValidation:rule="has(self.certificate) == has(self.key)",message="set certificate and key together"
type TLS struct {
	// CA has the PEM certificates of trusted authorities. Default: the system's.
	// +optional
	CA *ValueSource `json:"ca,omitempty"`
	// Certificate is the client certificate in PEM.
	// +optional
	Certificate *ValueSource `json:"certificate,omitempty"`
	// Key of the certificate, in PEM.
	// +optional
	Key *ValueSource `json:"key,omitempty"`
	// ServerName is the expected name in the server's certificate. Default: the host of the connection.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServerName string `json:"serverName,omitempty"`
}

// ValueSource is a value in place or a key of a Secret or ConfigMap in the policy's namespace. Exactly one must be set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.value), has(self.secretKeyRef), has(self.configMapKeyRef), has(self.env), has(self.file)].exists_one(set, set)",message="set exactly one of value, secretKeyRef and configMapKeyRef"
// +kubebuilder:validation:XValidation:rule="!has(self.env) && !has(self.file)",message="env and file are for policies read from files: use secretKeyRef"
// +kubebuilder:validation:XValidation:rule="!has(self.secretKeyRef) || size(self.secretKeyRef.name) > 0 && size(self.secretKeyRef.key) > 0",message="secretKeyRef must name a Secret and a key of it"
// +kubebuilder:validation:XValidation:rule="!has(self.configMapKeyRef) || size(self.configMapKeyRef.name) > 0 && size(self.configMapKeyRef.key) > 0",message="configMapKeyRef must name a ConfigMap and a key of it"
type ValueSource struct {
	// Value is the value itself, of at most 65,536 characters. Use it for values without credentials, and for policies from
	// files.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	// +optional
	Value string `json:"value,omitempty"`
	// SecretKeyRef names a key of a Secret in the policy's namespace.
	// +optional
	SecretKeyRef *corev1.SecretKeySelector `json:"secretKeyRef,omitempty"`
	// ConfigMapKeyRef names a key of a ConfigMap in the policy's namespace.
	// +optional
	ConfigMapKeyRef *corev1.ConfigMapKeySelector `json:"configMapKeyRef,omitempty"`
	// Env names an environment variable of the scaler. Only policies read from files may use it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Env string `json:"env,omitempty"`
	// File is a path, relative to the directory of policies. Only policies read from files may use it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	File string `json:"file,omitempty"`
}

// Target converts a backlog into replicas.
//
// +kubebuilder:validation:XValidation:rule="!has(self.serviceTime) || has(self.drainWithin)",message="serviceTime is used by drainWithin only: set both, or neither"
type Target struct {
	// MessagesPerReplica is the number of waiting messages per replica. Default: 1.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MessagesPerReplica int32 `json:"messagesPerReplica,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('168h')",message="must be from 1s to 168h"
	// DrainWithin starts only as many replicas as are needed to drain the waiting messages within this time, if that is
	// fewer than one for every messagesPerReplica messages. Workers must take several messages (--max-messages 0).
	// +optional
	DrainWithin *metav1.Duration `json:"drainWithin,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('168h')",message="must be more than 0s and at most 168h"
	// ServiceTime is the mean time of a replica per message. Default: observed from finished work, which requires a source
	// that counts it (RabbitMQ with managementURI, Kafka).
	// +optional
	ServiceTime *metav1.Duration `json:"serviceTime,omitempty"`
	// MaxReplicas caps the target at all times. Default: 100.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`
	// MaxReplicasGroup shares a cap with other policies of the namespace.
	// +optional
	MaxReplicasGroup *MaxReplicasGroup `json:"maxReplicasGroup,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1h')",message="must be from 0s to 1h"
	// ScaleInStabilization is for ScaledObjects only. The target does not fall below its maximum within this time, so that
	// a short pause does not end workers. Do not set it for a ScaledJob, whose jobs end by themselves.
	// +optional
	ScaleInStabilization *metav1.Duration `json:"scaleInStabilization,omitempty"`
}

// MaxReplicasGroup is a cap that several policies share, such as the seats of a license. Each gets its weighted fair
// share, and what the others do not use.
type MaxReplicasGroup struct {
	// Name of the group. Policies of a namespace that name the same group share its cap.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	Name string `json:"name"`
	// MaxReplicas of the whole group. If its policies differ, the smallest applies.
	// +kubebuilder:validation:Minimum=0
	MaxReplicas int32 `json:"maxReplicas"`
	// Weight of this policy in the group. Default: 1.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Weight int32 `json:"weight,omitempty"`
}

// Limits limit the target while a period is in force. A limit that is not set comes from the default. No cap exceeds
// target.maxReplicas.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",message="minReplicas must not exceed maxReplicas"
type Limits struct {
	// MinReplicas is the floor: at least this many replicas, even without work.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// IdleReplicas is the reserve: this many replicas beyond those that work.
	// +kubebuilder:validation:Minimum=0
	// +optional
	IdleReplicas *int32 `json:"idleReplicas,omitempty"`
	// MaxReplicas is the cap.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`
	// Surplus adds replicas while messages wait, so that they wait for shorter: a number from 0 to 100000 such as 2, or a
	// percentage from "0%" to "1000%" of the replicas that the waiting messages ask for, such as "30%", rounded down. Some of
	// them find no message. Default: 0.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=7
	// +kubebuilder:validation:Pattern=`^(0|[1-9][0-9]{0,2}|1000)%$`
	// +optional
	Surplus *intstr.IntOrString `json:"surplus,omitempty"`
}

// Calendar maps instants to limits. An exception takes precedence over a holiday, a holiday over a period, and a period
// over the default.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exceptions) || self.exceptions.all(e, !has(e.use) || e.use == 'default' || has(self.periods) && self.periods.exists(p, p.name == e.use))",message="use of an exception must name a period of the calendar, or default"
// +kubebuilder:validation:XValidation:rule="!has(self.holidays) || !has(self.holidays.use) || self.holidays.use == 'default' || has(self.periods) && self.periods.exists(p, p.name == self.holidays.use)",message="use of holidays must name a period of the calendar, or default"
type Calendar struct {
	// TimeZone is an IANA name such as Europe/Prague. All times of the calendar are wall-clock times in it. Default: UTC.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default=UTC
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// Weekend are the weekdays that are not business days. Default: Sat and Sun.
	// +kubebuilder:validation:MaxItems=6
	// +kubebuilder:validation:items:MaxLength=9
	// +optional
	Weekend []string `json:"weekend,omitempty"`
	// Default limits apply outside all periods.
	// +optional
	Default Limits `json:"default,omitempty"`
	// Periods of the week, month or year. If several overlap, the highest floor, idle reserve and surplus and the lowest cap
	// apply.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Periods []Period `json:"periods,omitempty"`
	// Exceptions are dates with other limits. If several have the same date, the first in the list applies.
	// +kubebuilder:validation:MaxItems=128
	// +optional
	Exceptions []Exception `json:"exceptions,omitempty"`
	// Holidays are the dates of an iCalendar file. They are not business days.
	// +optional
	Holidays *Holidays `json:"holidays,omitempty"`
	// AdditionalHolidays are those of more files, or of other events of the same file. If several have the same date, the
	// first applies, and holidays before all of these.
	// +kubebuilder:validation:MaxItems=15
	// +optional
	AdditionalHolidays []Holidays `json:"additionalHolidays,omitempty"`
}

// Holidays are dates of an iCalendar file that replace the periods that start on them. Set one of use, limits and
// sameAs, or periods, or both.
//
// +kubebuilder:validation:XValidation:rule="[has(self.use), has(self.limits), has(self.sameAs)].filter(set, set).size() == 1 || has(self.periods) && !has(self.use) && !has(self.limits) && !has(self.sameAs)",message="set either use, limits or sameAs, or periods"
type Holidays struct {
	// ICS is an iCalendar file (RFC 5545). Every date that one of its events touches is a holiday, including recurrences,
	// but not cancelled events.
	ICS ValueSource `json:"ics"`
	// Only selects events of the file. Default: all.
	// +optional
	Only *HolidayFilter `json:"only,omitempty"`
	// Except excludes events. Default: none.
	// +optional
	Except *HolidayFilter `json:"except,omitempty"`
	// Strict refuses a file with an event that can't be interpreted. By default, the event is skipped, and ebbtide explain
	// and the condition HolidaysRead say why.
	// +optional
	Strict bool `json:"strict,omitempty"`
	// Use names the period whose limits apply all day.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that apply all day.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
	// SameAs is the weekday whose periods apply, such as Sun, or usual for those of the day itself.
	// +kubebuilder:validation:MaxLength=9
	// +optional
	SameAs string `json:"sameAs,omitempty"`
	// Periods are hours of these dates. They take precedence over everything else. At other hours sameAs, use or limits
	// apply, or the default.
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Periods []SpecialHours `json:"periods,omitempty"`
}

// HolidayFilter selects events of an iCalendar file. An event must match all fields that are set. Case does not matter.
type HolidayFilter struct {
	// Categories (CATEGORIES): an event must have one of them.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +optional
	Categories []string `json:"categories,omitempty"`
	// Summaries (SUMMARY): an event's must contain one of them.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +optional
	Summaries []string `json:"summaries,omitempty"`
	// Transparency selects events that show as busy (Opaque) or as free (Transparent).
	// +kubebuilder:validation:Enum=Opaque;Transparent
	// +optional
	Transparency string `json:"transparency,omitempty"`
}

// Period is a part of the week, month or year with its limits.
type Period struct {
	// Name of the period, unique in the calendar.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	Name string `json:"name"`
	// Days on which the period starts, any of: a weekday (Mon or Monday); a range of them (Mon-Fri; it may wrap: Fri-Mon);
	// days of the month (day 15, day 1-5); first, second, third, fourth, fifth or last followed by a weekday (first
	// Monday), by day (last day) or by business day (last business day); days before the last (last day -2, last business
	// day -1); business day for each of them, which is a day of neither the weekend nor the holidays; a date, or dates,
	// with or without a year (2026-12-24, 12-24, 12-24 to 12-31). Case does not matter. Empty: every day.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=32
	// +optional
	Days []string `json:"days,omitempty"`
	// Months of those days: Mar, or Nov-Feb. Empty: all.
	// +kubebuilder:validation:MaxItems=12
	// +kubebuilder:validation:items:MaxLength=20
	// +optional
	Months []string `json:"months,omitempty"`
	// Weeks of those days. Unset: all.
	// +optional
	Weeks *Weeks `json:"weeks,omitempty"`
	// From is the local time HH:MM at which the period starts. Default: 00:00.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +optional
	From string `json:"from,omitempty"`
	// To is the local time HH:MM at which it ends, up to 24:00. If it is not after from, it is on the next day. On a later
	// day: "06:00 +2" is two days after the start; "Mon 06:00" is the next Monday, if days names one weekday. Default:
	// 24:00.
	// +kubebuilder:validation:Pattern=`^([A-Za-z]{3,9} )?(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)( \+([1-9]|[12][0-9]|3[01]))?$`
	// +optional
	To string `json:"to,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be from 0s to 24h"
	// LeadTime applies the limits this much earlier, so that the replicas of the floor exist when the period starts.
	// +optional
	LeadTime *metav1.Duration `json:"leadTime,omitempty"`
	// Limits in force during the period.
	Limits Limits `json:"limits"`
}

// Weeks are every nth week, from Monday to Sunday.
type Weeks struct {
	// Every is n: 2 for every other week.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=52
	Every int32 `json:"every"`
	// From is a date (2026-01-05) in one of these weeks. They are counted from it in both directions.
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`
	From string `json:"from"`
}

// SpecialHours are hours of an exception or of a holiday.
//
// +kubebuilder:validation:XValidation:rule="has(self.use) != has(self.limits)",message="set either use or limits"
type SpecialHours struct {
	// From is the local time HH:MM at which they start. Default: 00:00.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +optional
	From string `json:"from,omitempty"`
	// To is when they end, as of a period. Default: 24:00.
	// +kubebuilder:validation:Pattern=`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)( \+([1-9]|[12][0-9]|3[01]))?$`
	// +optional
	To string `json:"to,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be from 0s to 24h"
	// LeadTime applies the limits this much earlier.
	// +optional
	LeadTime *metav1.Duration `json:"leadTime,omitempty"`
	// Use names the period whose limits apply. Set either use or limits.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that apply. Set either use or limits.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
}

// Exception is a range of dates that replaces the periods that start on them. Set one of use, limits and sameAs, or
// periods, or both. If exceptions share dates, the first in the list applies; one that never applies is refused.
//
// +kubebuilder:validation:XValidation:rule="[has(self.use), has(self.limits), has(self.sameAs)].filter(set, set).size() == 1 || has(self.periods) && !has(self.use) && !has(self.limits) && !has(self.sameAs)",message="set either use, limits or sameAs, or periods"
type Exception struct {
	// Name of the exception, shown in decisions.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	Name string `json:"name"`
	// From is the first date: 2026-12-24, or 12-24 for every year.
	// +kubebuilder:validation:Pattern=`^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`
	From string `json:"from"`
	// To is the last date, included. Default: from.
	// +kubebuilder:validation:Pattern=`^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`
	// +optional
	To string `json:"to,omitempty"`
	// Use names the period whose limits hold all day.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that hold all day.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
	// SameAs is the weekday whose periods apply, such as Fri, or usual for those of the day itself. With a weekday that is
	// a business day, these dates are business days too.
	// +kubebuilder:validation:MaxLength=9
	// +optional
	SameAs string `json:"sameAs,omitempty"`
	// Periods are hours of these dates. They beat all else; at other hours sameAs, use or limits hold, or else the
	// default limits.
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Periods []SpecialHours `json:"periods,omitempty"`
}

// Outage says what holds while the backlog can't be read.
type Outage struct {
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('8760h')",message="must be from 0s to 8760h"
	// HoldFor is how long the last observation stays in force. After that, only the calendar applies. From 0s to 8760h;
	// default: 5m.
	// +kubebuilder:default="5m"
	// +optional
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// ScalingPolicyStatus is written by the elected leader of the scaler when it changes, at most every few seconds.
type ScalingPolicyStatus struct {
	// ObservedGeneration is the generation of the spec that was last read, valid or not. The condition Accepted says
	// whether it is in force.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Current limits.
	// +optional
	Current *CurrentLimits `json:"current,omitempty"`
	// NextChange of the limits.
	// +optional
	NextChange *NextChange `json:"nextChange,omitempty"`
	// LastDecision is the last decision that differs from the previous one. It is written every few seconds at most.
	// +optional
	LastDecision *LastDecision `json:"lastDecision,omitempty"`
	// Group is the policy's share of the cap of its maxReplicasGroup. All replicas of the scaler use it.
	// +optional
	Group *GroupShare `json:"group,omitempty"`
	// ServiceTime is the observed mean time of a replica per message. It is kept across restarts of the scaler.
	// +optional
	ServiceTime *metav1.Duration `json:"serviceTime,omitempty"`
	// Conditions: Ready, Accepted, BacklogReachable, CredentialsResolved and, with holidays, HolidaysRead.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CurrentLimits are the limits in force and the period they come from.
type CurrentLimits struct {
	Period       string `json:"period"`
	MinReplicas  int32  `json:"minReplicas"`
	IdleReplicas int32  `json:"idleReplicas"`
	MaxReplicas  int32  `json:"maxReplicas"`
	// Surplus while messages wait; empty: none.
	// +optional
	Surplus string `json:"surplus,omitempty"`
}

// NextChange is when limits change next, and to which period.
type NextChange struct {
	Time   metav1.Time `json:"time"`
	Period string      `json:"period"`
}

// GroupShare is a policy's share of a cap.
type GroupShare struct {
	// Name of the group.
	Name string `json:"name"`
	// Replicas that the policy may have.
	Replicas int64 `json:"replicas"`
}

// LastDecision is the newest decision, as its ledger entry has it.
type LastDecision struct {
	Time       metav1.Time `json:"time"`
	Ready      int64       `json:"ready"`
	InFlight   int64       `json:"inFlight"`
	Target     int32       `json:"target"`
	Constraint string      `json:"constraint"`
	Reason     string      `json:"reason"`
}

// Condition types of a ScalingPolicy. Each is Unknown until it is known.
const (
	// ConditionReady sums the others up: True while they all are, False while one of them is.
	ConditionReady = "Ready"
	// ConditionAccepted is True when the newest spec is in force. While it is not, the last one that was valid stays in force.
	ConditionAccepted = "Accepted"
	// ConditionBacklogReachable is True while the backlog is read without error.
	ConditionBacklogReachable = "BacklogReachable"
	// ConditionCredentialsResolved is True while all values that the spec refers to are found.
	ConditionCredentialsResolved = "CredentialsResolved"
	// ConditionHolidaysRead is True while every event of the policy's iCalendar files is understood, and their last year is not over. A policy
	// without such files has no such condition. While it is False the other holidays hold, and Ready is not False for it.
	ConditionHolidaysRead = "HolidaysRead"
)

// Reasons of conditions.
const (
	ReasonAccepted    = "Accepted"
	ReasonInvalid     = "Invalid"
	ReasonReachable   = "Reachable"
	ReasonUnreachable = "Unreachable"
	// ReasonHeld is that of a backlog that can't be read, while the last observation stays in force.
	ReasonHeld = "Held"
	// ReasonNotAsked is that of a policy that no trigger has asked for.
	ReasonNotAsked = "NotAsked"
	// ReasonQueueMissing is that of a queue that does not exist and counts as empty.
	ReasonQueueMissing = "QueueMissing"
	// ReasonManagementUnreachable is that of a backlog that is read, without what the management API would tell.
	ReasonManagementUnreachable = "ManagementUnreachable"
	ReasonResolved              = "Resolved"
	ReasonUnresolved            = "Unresolved"
	ReasonReady                 = "Ready"
	ReasonHolidaysRead          = "Read"
	// ReasonHolidaysSkipped is that of an iCalendar file with events that are not understood; they are no holidays.
	ReasonHolidaysSkipped = "HolidaysSkipped"
	// ReasonHolidaysExpired is that of an iCalendar file without a holiday in this year or later.
	ReasonHolidaysExpired = "HolidaysExpired"
)
