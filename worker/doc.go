// Package worker takes messages from a RabbitMQ queue, runs a command on each, and settles the message by how the
// command ended. The command knows nothing of queues or Kubernetes: it reads the message from standard input, writes
// its result to standard output and exits.
//
//	exit 0                 the result is published and confirmed, then the message is acknowledged
//	a retryable exit code  the message goes back to the queue, which counts deliveries and sets their limit
//	killed by a signal     likewise
//	any other exit code    the message is dead-lettered with the reason
//
// The worker is a consumer with prefetch 1 for exactly as long as it holds or wants a message, because the scaler
// counts consumers: it stops being one just before it settles its last message, so that none is delivered to it that
// it would have to give back.
package worker
