// Package decision takes decisions by the arithmetic of package sizing, and keeps what the next ones need: the last observation of each policy,
// what its messages take, its highest targets, and who of a group may have how much of its cap. The service that KEDA calls, the API that
// explains, and the writer of statuses all use the one Decider.
//
// It shows decisions, too: a ledger of the last ones of each policy, log lines, spans and Prometheus series. Everything shown is rendered from the
// one Decision value.
package decision
