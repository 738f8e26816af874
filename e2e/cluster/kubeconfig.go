package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// tokenSeconds is how long the components' service account tokens live. Longer than anyone leaves a cluster up.
const tokenSeconds int64 = 30 * 24 * 3600

// certificateUser writes a kubeconfig for a user that authenticates by a client certificate of the cluster's CA, and finds the API server
// at a URL.
func (c *Cluster) certificateUser(name, server string, s subject) error {
	if err := c.ca.issue(name, s); err != nil {
		return err
	}
	return c.writeKubeconfig(name, server, &clientcmdapi.AuthInfo{
		ClientCertificate: c.path("pki", name+".crt"),
		ClientKey:         c.path("pki", name+".key"),
	})
}

// serviceAccountUser writes a kubeconfig for a service account, which must exist.
func (c *Cluster) serviceAccountUser(ctx context.Context, client kubernetes.Interface, name, namespace, account string) error {
	seconds := tokenSeconds
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token for service account %s/%s: %w", namespace, account, err)
	}
	return c.writeKubeconfig(name, c.apiServer(), &clientcmdapi.AuthInfo{Token: token.Status.Token})
}

func (c *Cluster) writeKubeconfig(name, server string, user *clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["ebbtide"] = &clientcmdapi.Cluster{
		Server: server, CertificateAuthority: c.ca.path(),
	}
	config.AuthInfos[name] = user
	config.Contexts["ebbtide"] = &clientcmdapi.Context{Cluster: "ebbtide", AuthInfo: name}
	config.CurrentContext = "ebbtide"
	if err := os.MkdirAll(c.path("kubeconfig"), 0o755); err != nil {
		return err
	}
	return clientcmd.WriteToFile(*config, c.Kubeconfig(name))
}

// Kubeconfig is the path of a user's kubeconfig; "admin" may do everything.
func (c *Cluster) Kubeconfig(user string) string { return filepath.Join(c.Dir, "kubeconfig", user) }
