package scenario

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
)

// dialScaler connects to the cluster's scaler, with the certificate that KEDA has.
func dialScaler(c *cluster.Cluster) (*grpc.ClientConn, error) {
	files := map[string][]byte{}
	for _, name := range []string{cluster.ScalerClient + ".crt", cluster.ScalerClient + ".key", cluster.ScalerCA + ".crt"} {
		text, err := c.PKI(name)
		if err != nil {
			return nil, err
		}
		files[name] = text
	}
	pair, err := tls.X509KeyPair(files[cluster.ScalerClient+".crt"], files[cluster.ScalerClient+".key"])
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	config.RootCAs.AppendCertsFromPEM(files[cluster.ScalerCA+".crt"])
	return grpc.NewClient(c.ScalerAddress(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// pollBeside asks for the policy of the scans until ctx ends, as if others than KEDA did: so many of them, each once a second, one
// after the other.
func pollBeside(ctx context.Context, c *cluster.Cluster, pollers int) error {
	connection, err := dialScaler(c)
	if err != nil {
		return err
	}
	defer connection.Close()
	scaler := pb.NewExternalScalerClient(connection)
	ref := &pb.ScaledObjectRef{Name: "beside", Namespace: namespace, ScalerMetadata: map[string]string{"policy": "scans"}}
	start := time.Now()
	var all errgroup.Group
	for i := range pollers {
		all.Go(func() error {
			for at := start.Add(time.Duration(i) * time.Second / time.Duration(pollers)); ; at = at.Add(time.Second) {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Until(at)):
				}
				if _, err := scaler.IsActive(ctx, ref); err != nil && ctx.Err() == nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}
