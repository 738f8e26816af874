// Package decision keeps and shows the decisions that package sizing makes: a ledger of the last ones per policy, log
// lines and Prometheus series. Everything shown is rendered from the one Decision value.
package decision
