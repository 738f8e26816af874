package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

// SaveEtcd writes a snapshot of etcd to a file while everything runs.
func (c *Cluster) SaveEtcd(ctx context.Context, file string) error {
	config, err := c.ca.clientConfig("etcd-client")
	if err != nil {
		return err
	}
	_, err = snapshot.SaveWithVersion(ctx, zap.NewNop(), clientv3.Config{
		Endpoints: []string{fmt.Sprintf("https://127.0.0.1:%d", c.ports.Etcd)}, TLS: config, DialTimeout: 10 * time.Second,
	}, file)
	return err
}

// RestoreEtcd gives an etcd that does not run the data of a snapshot. Revisions continue far above those of the snapshot, so that clients
// which have seen later ones notice.
func (c *Cluster) RestoreEtcd(ctx context.Context, file string) error {
	if err := os.RemoveAll(c.path("etcd")); err != nil {
		return err
	}
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.ports.EtcdPeer)
	out, err := exec.CommandContext(ctx, c.tools.Bin("etcdutl"), "snapshot", "restore", file, "--data-dir="+c.path("etcd"),
		"--name=ebbtide", "--initial-cluster=ebbtide="+peer, "--initial-advertise-peer-urls="+peer,
		"--bump-revision=1000000000", "--mark-compacted").CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("etcdutl snapshot restore: %w", err), errors.New(string(out)))
	}
	return nil
}
