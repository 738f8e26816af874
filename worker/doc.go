// Package worker takes messages from a queue, runs a command on each, and acks, retries or dead-letters the message by how it ended. The
// command knows nothing of queues or Kubernetes: it reads the message from standard input, writes its result to standard
// output and exits.
//
//	exit 0                 the result is published and confirmed, then the message is acknowledged
//	a retryable exit code  the message gets another attempt, up to the worker's or the queue's limit
//	killed by a signal     likewise
//	any other exit code    a result with the reason is published and confirmed, then the message is dead-lettered
//
// A message is acked after its result is safe, so a result comes at least once; a repeated one has the same key. What is common to
// all queues is here, and what is not is behind the interface Queue: package rabbitmq, package kafka. Package results is for those who
// take the results.
package worker
