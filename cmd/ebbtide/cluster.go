package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// clusterFlags say which cluster is meant.
type clusterFlags struct{ kubeconfig, context string }

func (c *clusterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file; default: $KUBECONFIG, else ~/.kube/config")
	cmd.Flags().StringVar(&c.context, "context", "", "context of the kubeconfig; default: the current context")
}

func (c *clusterFlags) config() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to talk to: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	return config, nil
}

// component is one of ours, by the HTTP port of its pods.
type component struct {
	name string
	port int
}

var (
	scalerComponent    = component{"ebbtide-scaler", 8080}
	schedulerComponent = component{"ebbtide-scheduler", 10260}
)

// reachFlags say how a component is reached: at an address, or through port-forwards that the command makes itself.
type reachFlags struct {
	clusterFlags
	url, namespace string
}

func (r *reachFlags) add(cmd *cobra.Command, c component) {
	r.clusterFlags.add(cmd)
	cmd.Flags().StringVar(&r.url, "url", "", fmt.Sprintf("address of the %s's HTTP port (%d) instead of a port-forward to its pods: http://localhost:%d", c.name, c.port, c.port))
	cmd.Flags().StringVar(&r.namespace, "system-namespace", "ebbtide-system", "namespace of "+c.name)
}

// reach returns the addresses of all pods of a component that run, and closes them with ctx.
func (r *reachFlags) reach(ctx context.Context, c component) ([]string, error) {
	if r.url != "" {
		return []string{strings.TrimSuffix(r.url, "/")}, nil
	}
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	pods, err := client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + c.name})
	if err != nil {
		return nil, err
	}
	var addresses []string
	var wrong []error
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		address, err := forward(ctx, config, client, pod.Namespace, pod.Name, c.port)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("port-forward to pod %s/%s: %w", pod.Namespace, pod.Name, err))
			continue
		}
		addresses = append(addresses, address)
	}
	if len(addresses) == 0 {
		return nil, errors.Join(append(wrong, fmt.Errorf("no pod of %s in namespace %s can be reached (see --system-namespace, --url)", c.name, r.namespace))...)
	}
	return addresses, nil
}

// forward makes a port-forward that ends with ctx.
func forward(ctx context.Context, config *rest.Config, client kubernetes.Interface, namespace, pod string, port int) (string, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return "", err
	}
	at := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
	var said bytes.Buffer
	ready := make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, ctx.Done(), ready, io.Discard, &said)
	if err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return "", errors.Join(err, errors.New(strings.TrimSpace(said.String())))
	case <-time.After(15 * time.Second):
		return "", errors.New("no answer within 15s")
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local), nil
}

// errNotFound is an answer that there is nothing of that name.
var errNotFound = errors.New("not found")

// getJSON reads an answer.
func getJSON(ctx context.Context, address string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000)) // what could not be read is missing from an error
		err := fmt.Errorf("%s answers %s: %s", address, response.Status, strings.TrimSpace(string(text)))
		if response.StatusCode == http.StatusNotFound {
			return fmt.Errorf("%w: %s", errNotFound, strings.TrimSpace(string(text)))
		}
		return err
	}
	return json.NewDecoder(response.Body).Decode(into)
}
