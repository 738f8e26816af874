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
// +kubebuilder:printcolumn:name="Period",type=string,JSONPath=`.status.current.period`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.lastDecision.ready`
// +kubebuilder:printcolumn:name="In flight",type=integer,JSONPath=`.status.lastDecision.inFlight`
// +kubebuilder:printcolumn:name="Target",type=integer,JSONPath=`.status.lastDecision.target`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.lastDecision.constraint`
// +kubebuilder:printcolumn:name="Next change",type=string,JSONPath=`.status.nextChange.time`
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
type ScalingPolicySpec struct {
	// Backlog is where the waiting work is counted. Exactly one source must be set.
	Backlog Backlog `json:"backlog"`
	// Target turns the backlog into a number of replicas.
	// +optional
	Target Target `json:"target,omitempty"`
	// Calendar sets floors, idle reserves and caps by the time of the week. Without it only target.maxReplicas bounds
	// the target.
	// +optional
	Calendar *Calendar `json:"calendar,omitempty"`
	// Outage says what holds while the backlog can't be read.
	// +optional
	Outage Outage `json:"outage,omitempty"`
}

// Backlog names one source of waiting work.
//
// +kubebuilder:validation:XValidation:rule="has(self.rabbitmq)",message="set a source: rabbitmq"
type Backlog struct {
	// RabbitMQ counts the messages and consumers of one or more queues of a broker.
	// +optional
	RabbitMQ *RabbitMQBacklog `json:"rabbitmq,omitempty"`
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
// +kubebuilder:validation:XValidation:rule="has(self.queue) != has(self.queues)",message="set either queue or queues"
type RabbitMQBacklog struct {
	// URI of the broker, amqp:// or amqps://. The path is the virtual host.
	URI ValueSource `json:"uri"`
	// ManagementURI of the broker's management API, http:// or https://. Without it unacknowledged messages are not
	// known and consumers stand in for them.
	// +optional
	ManagementURI *ValueSource `json:"managementURI,omitempty"`
	// Queue is the name of the queue. Set either queue or queues.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +optional
	Queue string `json:"queue,omitempty"`
	// Queues are names of queues whose messages and consumers are added up.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	Queues []string `json:"queues,omitempty"`
	// OnMissingQueue says what a queue that does not exist means. Default: Zero.
	// +kubebuilder:default=Zero
	// +optional
	OnMissingQueue MissingQueue `json:"onMissingQueue,omitempty"`
	// OtherConsumers is how many consumers of these queues are not pods of the workload being scaled. They are
	// subtracted from the consumers seen. Default: 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	OtherConsumers int32 `json:"otherConsumers,omitempty"`
}

// ValueSource is a value in place or a key of a Secret in the policy's namespace. Exactly one must be set.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.secretKeyRef)",message="set either value or secretKeyRef"
// +kubebuilder:validation:XValidation:rule="!has(self.env)",message="env is for policies read from files: use secretKeyRef"
type ValueSource struct {
	// Value in place. Meant for values without credentials, and for policies read from files.
	// +optional
	Value string `json:"value,omitempty"`
	// SecretKeyRef names a key of a Secret in the policy's namespace.
	// +optional
	SecretKeyRef *corev1.SecretKeySelector `json:"secretKeyRef,omitempty"`
	// Env names an environment variable of the scaler. Only policies read from files may use it.
	// +optional
	Env string `json:"env,omitempty"`
}

// Target turns a backlog into replicas.
type Target struct {
	// MessagesPerReplica is how many waiting messages one new replica is for. Default: 1.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MessagesPerReplica int32 `json:"messagesPerReplica,omitempty"`
	// MaxReplicas caps the target at all times. Default: 100.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`
}

// Limits bound the target while a period is in force. An unset field leaves that bound as the default limits (or the
// target's maxReplicas) have it.
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

// Calendar maps instants to limits: an exception beats a period beats the default.
type Calendar struct {
	// TimeZone is an IANA name such as Europe/Prague. All times of the calendar are wall-clock times in it. Default: UTC.
	// +kubebuilder:default=UTC
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// Default limits hold outside every period.
	// +optional
	Default Limits `json:"default,omitempty"`
	// Periods of the week. Where several overlap, floors and idle reserves take the maximum and caps the minimum.
	// +optional
	Periods []Period `json:"periods,omitempty"`
	// Exceptions are dates on which one period's limits hold all day, whatever the weekday.
	// +optional
	Exceptions []Exception `json:"exceptions,omitempty"`
}

// Period is a part of the week with limits of its own.
type Period struct {
	// Name of the period, unique in the calendar.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Days on which the period starts: day names (Mon) and ranges (Mon-Fri; they may wrap: Fri-Mon). Empty: every day.
	// +optional
	Days []string `json:"days,omitempty"`
	// From is the local time HH:MM at which the period starts. Default: 00:00.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +optional
	From string `json:"from,omitempty"`
	// To is the local time HH:MM at which it ends, 24:00 included. Earlier than from: it ends on the next day.
	// Default: 24:00.
	// +kubebuilder:validation:Pattern=`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`
	// +optional
	To string `json:"to,omitempty"`
	// LeadTime starts the period this much earlier, so that its floor is there when it starts.
	// +optional
	LeadTime *metav1.Duration `json:"leadTime,omitempty"`
	// Limits in force during the period.
	Limits Limits `json:"limits"`
}

// Exception is a range of dates on which a period's limits hold all day.
//
// +kubebuilder:validation:XValidation:rule="has(self.use) != has(self.limits)",message="set either use or limits"
type Exception struct {
	// Name of the exception, shown in decisions.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// From is the first date: 2026-12-24, or 12-24 for every year.
	// +kubebuilder:validation:Pattern=`^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`
	From string `json:"from"`
	// To is the last date, included. Default: from.
	// +kubebuilder:validation:Pattern=`^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`
	// +optional
	To string `json:"to,omitempty"`
	// Use names the period whose limits hold. Set either use or limits.
	// +optional
	Use string `json:"use,omitempty"`
	// Limits that hold. Set either use or limits.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
}

// Outage says what holds while the backlog can't be read.
type Outage struct {
	// HoldFor is how long the last observation stays in force. After it only the calendar speaks. Default: 5m.
	// +optional
	HoldFor *metav1.Duration `json:"holdFor,omitempty"`
}

// ScalingPolicyStatus is written by the elected leader of the scaler, at most every few seconds.
type ScalingPolicyStatus struct {
	// ObservedGeneration is the generation of the spec in force. It lags metadata.generation while the newest edit is
	// invalid.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Current limits.
	// +optional
	Current *CurrentLimits `json:"current,omitempty"`
	// NextChange of the limits.
	// +optional
	NextChange *NextChange `json:"nextChange,omitempty"`
	// LastDecision taken.
	// +optional
	LastDecision *LastDecision `json:"lastDecision,omitempty"`
	// Conditions: Ready, BacklogReachable, Valid.
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

// LastDecision is the newest decision, as its ledger entry has it.
type LastDecision struct {
	Time       metav1.Time `json:"time"`
	Ready      int64       `json:"ready"`
	InFlight   int64       `json:"inFlight"`
	Target     int32       `json:"target"`
	Constraint string      `json:"constraint"`
	Reason     string      `json:"reason"`
}

// Condition types of a ScalingPolicy.
const (
	// ConditionReady is true when the newest spec is in force and its backlog is read.
	ConditionReady = "Ready"
	// ConditionBacklogReachable is true while the backlog is read without error.
	ConditionBacklogReachable = "BacklogReachable"
	// ConditionValid is true when the newest spec is valid. While it is not, the last one that was stays in force.
	ConditionValid = "Valid"
)
