package rabbitmq

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

// members is what the nodes of a cluster share.
type members struct {
	dir   string
	group *proc.Group
}

// Cluster is a cluster of nodes on one machine.
type Cluster struct {
	Nodes []*Broker
	members
}

// StartCluster starts a cluster of n nodes. Of the options, Group is not used.
func StartCluster(ctx context.Context, n int, options Options) (*Cluster, error) {
	c := &Cluster{members: members{dir: options.Dir, group: proc.NewGroup(options.Dir)}}
	// A cookie that all know, as they start at the same time.
	if err := os.WriteFile(filepath.Join(c.dir, ".erlang.cookie"), []byte(cookie), 0o400); err != nil {
		return nil, err
	}
	var nodes strings.Builder
	nodes.WriteString("cluster_formation.peer_discovery_backend = classic_config\ncluster_partition_handling = ignore\n")
	ports, err := proc.FreePorts(3*n + 1)
	if err != nil {
		return nil, err
	}
	for i := range n {
		dir := filepath.Join(c.dir, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		b := &Broker{
			port: ports[3*i], managementPort: ports[3*i+1], epmdPort: ports[3*n], group: c.group, cluster: &c.members,
			options: Options{Dir: dir, Release: options.Release, Plugins: options.Plugins},
		}
		fmt.Fprintf(&nodes, "cluster_formation.classic_config.nodes.%d = %s\n", i+1, b.Name())
		c.Nodes = append(c.Nodes, b)
	}
	if err := options.Release.available(); err != nil {
		return nil, err
	}
	for i, b := range c.Nodes {
		b.options.Config = nodes.String() + options.Config
		if err := b.configure(ports[3*i+2]); err != nil {
			return nil, err
		}
	}
	if err := c.Nodes[0].startPortMapper(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	all, ctx := errgroup.WithContext(ctx)
	for _, b := range c.Nodes {
		all.Go(func() error { return b.startNode(ctx) })
	}
	if err := all.Wait(); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

const cookie, otherCookie = "ebbtidetogether", "ebbtideapart"

// Stop ends all nodes.
func (c *Cluster) Stop() { c.group.Stop() }

// Isolate cuts a node off from the others, as a network that fails does; clients still reach all of them.
func (c *Cluster) Isolate(ctx context.Context, node *Broker) error {
	var eval strings.Builder
	for _, other := range c.Nodes {
		if other != node {
			fmt.Fprintf(&eval, "erlang:set_cookie('%s', '%s'), erlang:disconnect_node('%[1]s'), ", other.Name(), otherCookie)
		}
	}
	return node.Control(ctx, "eval", eval.String()+"ok.")
}

// Join ends an isolation.
func (c *Cluster) Join(ctx context.Context, node *Broker) error {
	var eval strings.Builder
	for _, other := range c.Nodes {
		if other != node {
			fmt.Fprintf(&eval, "erlang:set_cookie('%s', '%s'), net_kernel:connect_node('%[1]s'), ", other.Name(), cookie)
		}
	}
	return node.Control(ctx, "eval", eval.String()+"ok.")
}
