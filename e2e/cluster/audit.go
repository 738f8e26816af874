package cluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// auditPolicy notes the requests of the project's own components, which have no rights but those of its manifests and of the cluster's roles.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:ebbtide-system"]
- level: None
`

func (c *Cluster) auditArgs() ([]string, error) {
	policy := c.path("config", "audit-policy.yaml")
	return []string{"--audit-policy-file=" + policy, "--audit-log-path=" + c.auditLog()}, os.WriteFile(policy, []byte(auditPolicy), 0o644)
}

func (c *Cluster) auditLog() string { return c.path("logs", "audit.log") }

// Request is a request that the API server noted.
type Request struct{ User, Verb, URI string }

// Requests are those of the project's components that the API server answered or began to, and those of them that it refused because a right is missing.
// The cluster must have been started with Options.Audit.
func (c *Cluster) Requests() (all int, refused []Request, err error) {
	file, err := os.Open(c.auditLog())
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb, RequestURI string
			User             struct{ Username string }
			Annotations      map[string]string
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return all, refused, fmt.Errorf("%s: %w", c.auditLog(), err)
		}
		all++
		r := Request{event.User.Username, event.Verb, event.RequestURI}
		if event.Annotations["authorization.k8s.io/decision"] == "forbid" && !slices.Contains(refused, r) {
			refused = append(refused, r)
		}
	}
	return all, refused, lines.Err()
}
