package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/ebbtide-dev/ebbtide/images"
)

// StartRegistry starts a registry from which the nodes pull images of the project's that they do not have: see PushImage, RemoveImage. It
// keeps them in memory.
func (c *Cluster) StartRegistry(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until the network is closed
	c.network.closeLater(server)
	port := listener.Addr().(*net.TCPAddr).Port
	c.registry = listener.Addr().String()
	if err := c.network.forward(port); err != nil {
		return err
	}
	host, _, _ := strings.Cut(images.Registry, "/")
	for _, node := range c.nodes {
		folder := filepath.Join(node.dir, "registries", host)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		hosts := fmt.Sprintf("[host.\"http://%s:%d\"]\n  capabilities = [\"pull\", \"resolve\"]\n", gatewayAddress, port)
		if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(hosts), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Registry is the address of the registry on the machine, which speaks plain HTTP. Nodes pull from it what images.Registry names.
func (c *Cluster) Registry() string { return c.registry }

// PushImage gives an image to the registry, by images.Reference for the nodes.
func (c *Cluster) PushImage(ctx context.Context, image, tag string, content v1.Image) error {
	_, path, _ := strings.Cut(images.Reference(image, tag), "/")
	to, err := name.ParseReference(c.registry + "/" + path)
	if err != nil {
		return err
	}
	return remote.Write(to, content, remote.WithContext(ctx))
}

// RemoveImage removes an image from all nodes, with all that no other image and no container needs.
func (c *Cluster) RemoveImage(ctx context.Context, image, tag string) error {
	for _, node := range c.nodes {
		out, err := node.ctrOutput(ctx, "images", "list")
		if err != nil {
			return err
		}
		// The image has a name by its digest, too.
		digests := map[string]string{}
		for _, line := range strings.Split(out, "\n") {
			if fields := strings.Fields(line); len(fields) > 2 && strings.HasPrefix(fields[2], "sha256:") {
				digests[fields[0]] = fields[2]
			}
		}
		digest, there := digests[images.Reference(image, tag)]
		for same, of := range digests {
			if there && of == digest {
				if err := node.ctr(ctx, "images", "remove", "--sync", same); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
