package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ScalingPolicy says how many replicas (unfinished Jobs of a ScaledJob, pods of a ScaledObject) a queue's load asks
// for, between limits that follow a weekly calendar. A KEDA external trigger refers to it by name from the same
// namespace; editing it never touches the ScaledJob, so no running job restarts.
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

// ScalingPolicySpec is what the user writes.
//
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.drainWithin) || has(self.target.serviceTime) || has(self.backlog.kafka) || has(self.backlog.rabbitmq) && has(self.backlog.rabbitmq.managementURI)",message="drainWithin must know the service time, and this backlog does not count finished work: set target.serviceTime, or rabbitmq.managementURI"
type ScalingPolicySpec struct {
	// Backlog is where the waiting work is counted. Exactly one source must be set.
	Backlog Backlog `json:"backlog"`
	// Target turns the backlog into a number of replicas.
	// +kubebuilder:default={}
	// +optional
	Target Target `json:"target,omitempty"`
	// Calendar sets floors, idle reserves and caps by the time of the week. Without it only target.maxReplicas bounds
	// the target.
	// +optional
	Calendar *Calendar `json:"calendar,omitempty"`
	// Outage says what holds while the backlog can't be read.
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
	// Prometheus takes the value of an instant query, for whatever else counts work.
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
	// Username takes the place of the URI's, for brokers whose address and credentials are kept apart.
	// +optional
	Username *ValueSource `json:"username,omitempty"`
	// Password takes the place of the URI's.
	// +optional
	Password *ValueSource `json:"password,omitempty"`
	// TLS of amqps:// and https://. Without it the system's certificate authorities are trusted.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// ManagementURI of the broker's management API, http:// or https://. Without it unacknowledged messages are not
	// known and consumers stand in for them, service times are not observed, a stream is not told from a queue, and a queue with a
	// single active consumer not from another: of that one replica at most is asked for.
	// Credentials that it does not hold are those of uri.
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
	// Queues are names of queues whose messages and consumers are added up.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	// +listType=set
	// +optional
	Queues []string `json:"queues,omitempty"`
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255",message="RabbitMQ's names have at most 255 bytes"
	// QueuePattern matches the names of queues of the virtual host whose messages and consumers are added up, however they come and go:
	// `*` stands for any text, every other character for itself. It needs managementURI, which lists the queues; a new one counts within
	// seconds. More than 100 queues that match are an error, and so is a stream.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	// +optional
	QueuePattern string `json:"queuePattern,omitempty"`
	// OnMissingQueue says what a queue that does not exist means, or a pattern that matches none. Default: Zero.
	// +kubebuilder:default=Zero
	// +optional
	OnMissingQueue MissingQueue `json:"onMissingQueue,omitempty"`
	// OtherConsumers is how many consumers of these queues are not pods of the workload being scaled. They are
	// subtracted from the consumers seen. Default: 0.
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

// KafkaBacklog counts what a consumer group has still to commit.
type KafkaBacklog struct {
	// Brokers to start from, host:port each.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +listType=set
	Brokers []string `json:"brokers"`
	// ConsumerGroup whose committed offsets count.
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
	// OnMissingOffset says where a group without a committed offset starts, as its consumers' auto.offset.reset does:
	// Earliest counts everything that a partition holds. Latest counts nothing of it, and one message while the group has committed
	// nothing, or holds messages in a partition without a commit: it takes a worker to know from where on they count. An offset that
	// the partition does not have, as of a topic that was made anew, counts as none. Default: Earliest.
	// +kubebuilder:default=Earliest
	// +optional
	OnMissingOffset MissingOffset `json:"onMissingOffset,omitempty"`
	// IsolationLevel is that of the group's consumers (isolation.level): ReadCommitted leaves out what transactions have not
	// committed, or have aborted. Default: ReadUncommitted.
	// +kubebuilder:default=ReadUncommitted
	// +optional
	IsolationLevel IsolationLevel `json:"isolationLevel,omitempty"`
	// SASL credentials, if the brokers ask for them.
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
// +kubebuilder:validation:XValidation:rule="!has(self.bearerToken) || !has(self.headers) || !self.headers.exists(h, h.name.lowerAscii() == 'authorization')",message="headers: Authorization is made of bearerToken"
// +kubebuilder:validation:XValidation:rule="!has(self.headers) || self.headers.all(h, self.headers.exists_one(other, other.name.lowerAscii() == h.name.lowerAscii()))",message="headers: the case of a name does not make another header of it"
type PrometheusBacklog struct {
	// URL of the server, as for a data source: https://prometheus.example:9090. Credentials in it are used as basic
	// authentication.
	URL ValueSource `json:"url"`
	// Query whose value is the work that is not finished: what waits and what is worked on. A vector's samples are
	// added up.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query"`
	// OnNoData says what an empty answer means: Zero or Error. Default: Error.
	// +kubebuilder:default=Error
	// +optional
	OnNoData NoData `json:"onNoData,omitempty"`
	// BearerToken is sent along, to the server of url alone.
	// +optional
	BearerToken *ValueSource `json:"bearerToken,omitempty"`
	// Headers are sent along, to the server of url alone: X-Scope-OrgID for a tenant of Mimir or Thanos, say.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Headers []HTTPHeader `json:"headers,omitempty"`
	// QueryParameters are added to the URL of each query: dedup or partial_response of Thanos, say.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	QueryParameters []QueryParameter `json:"queryParameters,omitempty"`
	// TLS of https://. Without it the system's certificate authorities are trusted.
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
	// CA holds the PEM certificates of the authorities to trust. Unset: the system's.
	// +optional
	CA *ValueSource `json:"ca,omitempty"`
	// Certificate is the PEM certificate to present.
	// +optional
	Certificate *ValueSource `json:"certificate,omitempty"`
	// Key of the certificate, in PEM.
	// +optional
	Key *ValueSource `json:"key,omitempty"`
	// ServerName that the server's certificate must be for. Default: the host that is connected to.
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
	// Value in place, of at most 65,536 characters. Meant for values without credentials, and for policies read from files.
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

// Target turns a backlog into replicas.
//
// +kubebuilder:validation:XValidation:rule="!has(self.serviceTime) || has(self.drainWithin)",message="serviceTime is used by drainWithin only: set both, or neither"
type Target struct {
	// MessagesPerReplica is how many waiting messages one new replica is for. Default: 1.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MessagesPerReplica int32 `json:"messagesPerReplica,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('168h')",message="must be from 1s to 168h"
	// DrainWithin sizes for draining what waits in this time, where that takes fewer replicas than one for every
	// messagesPerReplica messages. The workers must go on with the next message (--max-messages 0) for it to work.
	// +optional
	DrainWithin *metav1.Duration `json:"drainWithin,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('168h')",message="must be more than 0s and at most 168h"
	// ServiceTime is the mean time that a replica takes for a message. Unset: observed from finished work, which takes a
	// source that counts it (RabbitMQ with managementURI, Kafka).
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
	// ScaleInStabilization is for a ScaledObject only: the target does not fall below the highest one of this long ago
	// until now, so that a short pause does not end workers. Leave it unset for a ScaledJob, whose jobs end by themselves.
	// +optional
	ScaleInStabilization *metav1.Duration `json:"scaleInStabilization,omitempty"`
}

// MaxReplicasGroup is a cap that several policies share, such as the seats of a licence. Each gets its weighted fair
// share, and what others leave unused.
type MaxReplicasGroup struct {
	// Name of the group. Policies of a namespace that name the same group share its cap.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\p{C}\p{Zl}\p{Zp}]+$`
	Name string `json:"name"`
	// MaxReplicas of the whole group. Where its policies differ, the smallest counts.
	// +kubebuilder:validation:Minimum=0
	MaxReplicas int32 `json:"maxReplicas"`
	// Weight of this policy in the group. Default: 1.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Weight int32 `json:"weight,omitempty"`
}

// Limits bound the target while a period is in force. What is set replaces the default limits' value, what is unset is
// taken from them. No cap goes beyond target.maxReplicas.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",message="minReplicas must not exceed maxReplicas"
type Limits struct {
	// MinReplicas is the floor: this many replicas exist even with no work.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// IdleReplicas is the reserve: this many replicas beyond those that work asks for.
	// +kubebuilder:validation:Minimum=0
	// +optional
	IdleReplicas *int32 `json:"idleReplicas,omitempty"`
	// MaxReplicas is the cap.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`
}

// Calendar maps instants to limits: an exception beats a holiday beats a period beats the default.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exceptions) || self.exceptions.all(e, !has(e.use) || e.use == 'default' || has(self.periods) && self.periods.exists(p, p.name == e.use))",message="use of an exception must name a period of the calendar, or default"
// +kubebuilder:validation:XValidation:rule="!has(self.holidays) || !has(self.holidays.use) || self.holidays.use == 'default' || has(self.periods) && self.periods.exists(p, p.name == self.holidays.use)",message="use of holidays must name a period of the calendar, or default"
type Calendar struct {
	// TimeZone is an IANA name such as Europe/Prague. All times of the calendar are wall-clock times in it. Default: UTC.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default=UTC
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// Weekend are the weekdays that are no business days. Default: Sat and Sun.
	// +kubebuilder:validation:MaxItems=6
	// +kubebuilder:validation:items:MaxLength=9
	// +optional
	Weekend []string `json:"weekend,omitempty"`
	// Default limits hold outside every period.
	// +optional
	Default Limits `json:"default,omitempty"`
	// Periods of the week, month or year. Where several overlap, floors and idle reserves take the maximum and caps the
	// minimum.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Periods []Period `json:"periods,omitempty"`
	// Exceptions are dates on which something else holds, whatever the weekday. Where several share a date the first in
	// the list holds.
	// +kubebuilder:validation:MaxItems=128
	// +optional
	Exceptions []Exception `json:"exceptions,omitempty"`
	// Holidays are the dates of an iCalendar file. They are no business days either.
	// +optional
	Holidays *Holidays `json:"holidays,omitempty"`
	// AdditionalHolidays are those of more files, or of other events of the same one. On a date that several name the
	// first holds, and holidays before all of these.
	// +kubebuilder:validation:MaxItems=15
	// +optional
	AdditionalHolidays []Holidays `json:"additionalHolidays,omitempty"`
}

// Holidays are dates of an iCalendar file, on which something else holds in place of the periods that start on them: set
// one of use, limits and sameAs, or periods, or one of the first and periods.
//
// +kubebuilder:validation:XValidation:rule="[has(self.use), has(self.limits), has(self.sameAs)].filter(set, set).size() == 1 || has(self.periods) && !has(self.use) && !has(self.limits) && !has(self.sameAs)",message="set either use, limits or sameAs, or periods"
type Holidays struct {
	// ICS is an iCalendar file (RFC 5545). Every date that one of its events touches is a holiday; recurrences count,
	// cancelled events do not.
	ICS ValueSource `json:"ics"`
	// Only chooses events of the file. Default: all.
	// +optional
	Only *HolidayFilter `json:"only,omitempty"`
	// Except leaves events out. Default: none.
	// +optional
	Except *HolidayFilter `json:"except,omitempty"`
	// Strict refuses a file with an event that is not understood. By default that event is skipped, and
	// ebbtide explain and the condition HolidaysRead say why.
	// +optional
	Strict bool `json:"strict,omitempty"`
	// Use names the period whose limits hold all day.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that hold all day.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
	// SameAs is the weekday whose periods hold (Sun), or usual for the day's own.
	// +kubebuilder:validation:MaxLength=9
	// +optional
	SameAs string `json:"sameAs,omitempty"`
	// Periods are hours of these dates. They beat all else; at other hours sameAs, use or limits hold, or else the
	// default limits.
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Periods []SpecialHours `json:"periods,omitempty"`
}

// HolidayFilter chooses events of an iCalendar file. An event must match each field that is set. Case does not matter.
type HolidayFilter struct {
	// Categories of which an event must have one (CATEGORIES).
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +optional
	Categories []string `json:"categories,omitempty"`
	// Summaries of which an event's (SUMMARY) must contain one.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=100
	// +optional
	Summaries []string `json:"summaries,omitempty"`
	// Transparency chooses events that show as busy (Opaque) or as free (Transparent).
	// +kubebuilder:validation:Enum=Opaque;Transparent
	// +optional
	Transparency string `json:"transparency,omitempty"`
}

// Period is a part of the week, month or year, with limits of its own.
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
	// To is the local time HH:MM at which it ends, 24:00 included. At or before from: on the next day. On a later day:
	// "06:00 +2" is two days after the start; "Mon 06:00" is the Monday after it, where days name one weekday. Default:
	// 24:00.
	// +kubebuilder:validation:Pattern=`^([A-Za-z]{3,9} )?(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)( \+([1-9]|[12][0-9]|3[01]))?$`
	// +optional
	To string `json:"to,omitempty"`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be from 0s to 24h"
	// LeadTime starts the period this much earlier, so that its floor is there when it starts.
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
	// From is a date (2026-01-05) in one of them, from which they are counted in both directions.
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
	// LeadTime starts them this much earlier.
	// +optional
	LeadTime *metav1.Duration `json:"leadTime,omitempty"`
	// Use names the period whose limits hold. Set either use or limits.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that hold. Set either use or limits.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
}

// Exception is a range of dates on which something else holds in place of the periods that start on them: set one of use,
// limits and sameAs, or periods, or one of the first and periods. Where exceptions share dates the first in the list holds;
// one that never holds is refused.
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
	// SameAs is the weekday whose periods hold (Fri), or usual for the day's own. With a weekday that is a business day
	// these dates are business days too.
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
	// HoldFor is how long the last observation stays in force. After it only the calendar speaks. From 0s to 8760h; default: 5m.
	// +kubebuilder:default="5m"
	// +optional
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// ScalingPolicyStatus is written by the elected leader of the scaler when what it says changes, at most every few seconds.
type ScalingPolicyStatus struct {
	// ObservedGeneration is the generation of the spec that was last looked at, valid or not. The condition Accepted says whether it is in
	// force.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Current limits.
	// +optional
	Current *CurrentLimits `json:"current,omitempty"`
	// NextChange of the limits.
	// +optional
	NextChange *NextChange `json:"nextChange,omitempty"`
	// LastDecision that said something new; one that repeats it leaves its time. Figures are written every few seconds at most.
	// +optional
	LastDecision *LastDecision `json:"lastDecision,omitempty"`
	// Group is the policy's share of the cap of its maxReplicasGroup, by which every replica of the scaler answers.
	// +optional
	Group *GroupShare `json:"group,omitempty"`
	// ServiceTime is the mean time that a replica takes for a message, as it was observed; it outlives the scaler.
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
