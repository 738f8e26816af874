// Package scenario proves the product on a real cluster: each test runs a scenario of package scans on parts that run in
// production, and checks what users care about.
package scenario
