package cluster

import (
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// DialScaler connects to the cluster's scaler, with the certificate that KEDA has.
func (c *Cluster) DialScaler() (*grpc.ClientConn, error) {
	files := map[string][]byte{}
	for _, name := range []string{ScalerClient + ".crt", ScalerClient + ".key", ScalerCA + ".crt"} {
		text, err := c.PKI(name)
		if err != nil {
			return nil, err
		}
		files[name] = text
	}
	pair, err := tls.X509KeyPair(files[ScalerClient+".crt"], files[ScalerClient+".key"])
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	config.RootCAs.AppendCertsFromPEM(files[ScalerCA+".crt"])
	return grpc.NewClient(c.ScalerAddress(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
}
