package cluster

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/e2e/proc"
)

const (
	serviceRange = "10.96.0.0/16"
	// kubernetesServiceIP is the first address of serviceRange, which the API server gives to itself.
	kubernetesServiceIP = "10.96.0.1"
	// kubeletClient is who the API server is to kubelets; manifests/system.yaml says what it may.
	kubeletClient = "kube-apiserver-kubelet-client"
)

// Names of components, for Crash and Restart.
const (
	Etcd      = "etcd"
	APIServer = "kube-apiserver"
	KEDA      = "keda-operator"
	Karpenter = "karpenter"
	Scaler    = "ebbtide-scaler"
	Scheduler = "ebbtide-scheduler"
	// SecondScheduler is there if Options asks for it.
	SecondScheduler = "ebbtide-scheduler-2"
)

// writePKI makes the certificates that exist before the API server does.
func (c *Cluster) writePKI() error {
	dir := c.path("pki")
	var err error
	if c.ca, err = newAuthority(dir, "ca"); err != nil {
		return err
	}
	frontProxy, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := frontProxy.issue("front-proxy-client", subject{commonName: "front-proxy-client"}); err != nil {
		return err
	}
	if err := serviceAccountKeys(dir); err != nil {
		return err
	}
	kubernetesNames := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	for name, s := range map[string]subject{
		"etcd":        {commonName: "etcd", dnsNames: []string{"etcd"}},
		"etcd-client": {commonName: "kube-apiserver"},
		"apiserver": {
			commonName: "kube-apiserver", dnsNames: kubernetesNames, addresses: []string{kubernetesServiceIP, gatewayAddress},
		},
		"apiserver-kubelet-client": {commonName: kubeletClient},
		"controllers-serving":      {commonName: "kube-controller-manager", dnsNames: []string{"kube-controller-manager"}},
		"scheduler-serving":        {commonName: "ebbtide-scheduler", dnsNames: []string{"ebbtide-scheduler"}},
	} {
		if err := c.ca.issue(name, s); err != nil {
			return err
		}
	}
	// KEDA reads a folder of ca.crt, tls.crt and tls.key.
	if err := os.MkdirAll(c.path("keda"), 0o755); err != nil {
		return err
	}
	if c.keda, err = newAuthority(c.path("keda"), "ca"); err != nil {
		return err
	}
	if err := c.keda.issue("tls", subject{
		commonName: "keda-operator", dnsNames: []string{"keda-operator", "keda-metrics-apiserver.keda.svc"},
	}); err != nil {
		return err
	}
	// Who may call the scaler is a matter of its own, not of the cluster's users.
	scaler, err := newAuthority(dir, ScalerCA)
	if err != nil {
		return err
	}
	if err := scaler.issue("scaler-serving", subject{commonName: "ebbtide-scaler", dnsNames: []string{"ebbtide-scaler"}}); err != nil {
		return err
	}
	if err := scaler.issue(ScalerClient, subject{commonName: "keda-operator"}); err != nil {
		return err
	}
	for name, s := range map[string]subject{
		"admin":                   {commonName: "admin", organization: []string{"system:masters"}},
		"kube-controller-manager": {commonName: "system:kube-controller-manager"},
		"kube-scheduler":          {commonName: "system:kube-scheduler"},
	} {
		if err := c.certificateUser(name, c.apiServer(), s); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) pki(file string) string { return c.path("pki", file) }

func (c *Cluster) etcd() proc.Spec {
	client := fmt.Sprintf("https://127.0.0.1:%d", c.ports.Etcd)
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.ports.EtcdPeer)
	metrics := fmt.Sprintf("http://127.0.0.1:%d", c.ports.EtcdMetrics)
	return proc.Spec{
		Name: Etcd, Path: c.tools.Bin("etcd"),
		Args: []string{
			"--name=ebbtide", "--data-dir=" + c.path("etcd"), "--log-level=warn",
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=ebbtide=" + peer,
			"--listen-metrics-urls=" + metrics,
			"--client-cert-auth", "--trusted-ca-file=" + c.ca.path(),
			"--cert-file=" + c.pki("etcd.crt"), "--key-file=" + c.pki("etcd.key"),
			// The cluster lives for minutes: durability against power failure would only cost time.
			"--unsafe-no-fsync",
		},
		Ready: proc.HTTPReady(metrics+"/health", nil),
	}
}

func (c *Cluster) kubeAPIServer() (proc.Spec, error) {
	tlsConfig, err := c.ca.clientConfig("admin")
	if err != nil {
		return proc.Spec{}, err
	}
	// The cluster's own Service can't have a loopback endpoint, and without pods nothing uses it.
	reach := []string{"--endpoint-reconciler-type=none"}
	if c.network != nil {
		egress := c.path("config", "egress.yaml")
		if err := os.WriteFile(egress, []byte(c.network.egressConfig()), 0o644); err != nil {
			return proc.Spec{}, err
		}
		reach = []string{
			"--advertise-address=" + gatewayAddress, "--egress-selector-config-file=" + egress,
			"--kubelet-preferred-address-types=InternalIP",
		}
	}
	if c.audit {
		auditArgs, err := c.auditArgs()
		if err != nil {
			return proc.Spec{}, err
		}
		reach = append(reach, auditArgs...)
	}
	return proc.Spec{
		Name: APIServer, Path: c.tools.Bin("kube-apiserver"),
		Args: append([]string{
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.ports.APIServer),
			fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.ports.Etcd), "--etcd-cafile=" + c.ca.path(),
			"--etcd-certfile=" + c.pki("etcd-client.crt"), "--etcd-keyfile=" + c.pki("etcd-client.key"),
			"--client-ca-file=" + c.ca.path(),
			"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
			"--kubelet-certificate-authority=" + c.ca.path(),
			"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + c.pki("sa.pub"), "--service-account-signing-key-file=" + c.pki("sa.key"),
			"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
			"--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"),
			"--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--service-cluster-ip-range=" + serviceRange, "--allow-privileged=true", "--profiling=false",
		}, reach...),
		Ready: proc.HTTPReady(c.apiServer()+"/readyz", tlsConfig), ReadyWithin: 2 * time.Minute,
	}, nil
}

// install applies definitions, roles and service accounts, and makes the credentials of the components that use them.
func (c *Cluster) install(ctx context.Context) error {
	if err := os.CopyFS(c.path("config"), manifests); err != nil {
		return err
	}
	deployments := func(object *unstructured.Unstructured) bool {
		switch object.GetKind() {
		case "Deployment", "PodDisruptionBudget":
			return true // the harness runs the binaries itself
		case "Service", "APIService":
			return object.GetNamespace() == "keda" || object.GetKind() == "APIService" // see registerExternalMetrics
		}
		return false
	}
	if err := c.apply(ctx, deployments,
		c.path("config", "manifests", "system.yaml"),
		c.tools.Asset("keda-crd"), c.tools.Asset("karpenter-crd"), c.tools.Asset("karpenter-kwok-crd"),
		filepath.Join(c.root, "manifests", "crd"),
		c.tools.Asset("keda-rbac"), c.tools.Asset("keda-metrics-server"), filepath.Join(c.tools.Asset("kwok-rbac"), "role.yaml"),
		c.path("config", "manifests", "karpenter.yaml"),
		filepath.Join(c.root, "manifests", "scaler"), filepath.Join(c.root, "manifests", "scheduler"),
	); err != nil {
		return err
	}
	if err := c.registerExternalMetrics(ctx); err != nil {
		return err
	}
	if c.draining {
		if err := c.allowDraining(ctx); err != nil {
			return err
		}
	}
	clientset, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	for name, account := range map[string][2]string{
		"keda":      {"keda", "keda-operator"},
		"karpenter": {"karpenter", "karpenter"},
		"kwok":      {"kube-system", "kwok-controller"},
		"scaler":    {"ebbtide-system", "ebbtide-scaler"},
		"scheduler": {"ebbtide-system", "ebbtide-scheduler"},
		PodRunner:   {"kube-system", "pod-runner"},
	} {
		if err := c.serviceAccountUser(ctx, clientset, name, account[0], account[1]); err != nil {
			return err
		}
	}
	return nil
}

// allowDraining gives the scheduler what the chart does when draining is turned on.
func (c *Cluster) allowDraining(ctx context.Context) error {
	rendered, err := c.Exec(ctx, "helm", "template", "ebbtide", "charts/ebbtide", "--namespace", "ebbtide-system",
		"--show-only", "templates/scheduler/workers.yaml", "--set", "scheduler.draining.enabled=true", "--set", "scheduler.draining.tlsSecret=unused")
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, []byte(rendered))
}

// registerExternalMetrics tells the API server where KEDA's metrics adapter serves what HorizontalPodAutoscalers ask for. A
// Service can't have a loopback endpoint, but it can be another name for localhost.
func (c *Cluster) registerExternalMetrics(ctx context.Context) error {
	ca, err := os.ReadFile(c.path("keda", "ca.crt"))
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, fmt.Appendf(nil, `
apiVersion: v1
kind: Service
metadata: {name: keda-metrics-apiserver, namespace: keda}
spec: {type: ExternalName, externalName: localhost}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  service: {name: keda-metrics-apiserver, namespace: keda, port: %d}
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  caBundle: %s
`, c.ports.KEDAAdapter, base64.StdEncoding.EncodeToString(ca)))
}

// Certificates of the scaler's gRPC service: NAME.crt and NAME.key in the folder pki.
const (
	// ScalerCA is the authority on both sides of a connection.
	ScalerCA = "scaler-ca"
	// ScalerClient is what KEDA presents.
	ScalerClient = "scaler-client"
)

// PKI reads a file of the folder pki.
func (c *Cluster) PKI(file string) ([]byte, error) { return os.ReadFile(c.pki(file)) }

// PodRunner is the user that runs pods on the nodes that KWOK keeps.
const PodRunner = "pod-runner"

// controllers are the components that need nothing of each other to start.
func (c *Cluster) controllers() ([]proc.Spec, error) {
	controllerManager, err := c.controllerManager()
	if err != nil {
		return nil, err
	}
	kedaTrust, err := c.keda.clientConfig("tls")
	if err != nil {
		return nil, err
	}
	scheduler, err := c.scheduler(Scheduler, c.ports.Scheduler, c.ports.SchedulerExplain)
	if err != nil {
		return nil, err
	}
	loopback := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	kubeconfig := func(user string) string { return "KUBECONFIG=" + c.Kubeconfig(user) }
	kwokStages, err := c.kwokStages()
	if err != nil {
		return nil, err
	}
	controllers := []proc.Spec{
		controllerManager,
		scheduler,
		{
			Name: "kwok", Path: c.tools.Bin("kwok"),
			Args: append([]string{
				"--kubeconfig=" + c.Kubeconfig("kwok"), "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
				"--node-lease-duration-seconds=40", "--server-address=" + loopback(c.ports.KWOK),
			}, kwokStages...),
			Ready: proc.HTTPReady("http://"+loopback(c.ports.KWOK)+"/healthz", nil),
		},
		{
			Name: Karpenter, Path: c.tools.Bin("karpenter"),
			Env: []string{
				kubeconfig("karpenter"), "SYSTEM_NAMESPACE=karpenter", "DISABLE_LEADER_ELECTION=true",
				fmt.Sprintf("METRICS_PORT=%d", c.ports.KarpenterMetrics), fmt.Sprintf("HEALTH_PROBE_PORT=%d", c.ports.KarpenterHealth),
				"BATCH_IDLE_DURATION=1s", "BATCH_MAX_DURATION=3s",
				"INSTANCE_TYPES_FILE_PATH=" + c.path("config", "manifests", "instance-types.json"),
			},
			Ready: proc.HTTPReady("http://"+loopback(c.ports.KarpenterHealth)+"/readyz", nil), ReadyWithin: 2 * time.Minute,
		},
		{
			Name: KEDA, Path: c.tools.Bin("keda-operator"),
			Args: []string{
				"--cert-dir=" + c.path("keda"),
				"--metrics-bind-address=" + loopback(c.ports.KEDAMetrics),
				"--health-probe-bind-address=" + loopback(c.ports.KEDAHealth),
				"--metrics-service-bind-address=" + loopback(c.ports.KEDAMetricsService),
				"--zap-log-level=info", "--zap-encoder=console",
			},
			Env: []string{
				kubeconfig("keda"), "POD_NAME=keda-operator", "POD_NAMESPACE=keda", "WATCH_NAMESPACE=",
				"KEDA_CLUSTER_OBJECT_NAMESPACE=keda",
			},
			Ready: proc.HTTPReady("http://"+loopback(c.ports.KEDAHealth)+"/readyz", nil), ReadyWithin: 2 * time.Minute,
		},
		{
			Name: "keda-adapter", Path: c.tools.Bin("keda-adapter"),
			Args: []string{
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.ports.KEDAAdapter),
				fmt.Sprintf("--port=%d", c.ports.KEDAAdapterMetrics), "--metrics-service-address=" + loopback(c.ports.KEDAMetricsService),
				"--cert-dir=" + c.path("keda"), "--client-ca-file=" + c.path("keda", "ca.crt"),
				"--tls-cert-file=" + c.path("keda", "tls.crt"), "--tls-private-key-file=" + c.path("keda", "tls.key"),
				"--authentication-kubeconfig=" + c.Kubeconfig("keda"), "--authorization-kubeconfig=" + c.Kubeconfig("keda"),
				"--lister-kubeconfig=" + c.Kubeconfig("keda"),
			},
			Env:   []string{kubeconfig("keda"), "POD_NAMESPACE=keda", "WATCH_NAMESPACE="},
			Ready: proc.HTTPReady(fmt.Sprintf("https://127.0.0.1:%d/healthz", c.ports.KEDAAdapter), kedaTrust), ReadyWithin: 2 * time.Minute,
		},
		{
			Name: Scaler, Path: c.Bin("ebbtide-scaler"),
			Args: []string{
				"--kubeconfig=" + c.Kubeconfig("scaler"), "--listen=" + c.ScalerAddress(),
				// There is one, and no kubelet to start it again should it lose its lease because no processor is free.
				"--leader-elect=false",
				"--metrics-listen=" + loopback(c.ports.ScalerMetrics),
				"--tls-cert=" + c.pki("scaler-serving.crt"), "--tls-key=" + c.pki("scaler-serving.key"),
				"--tls-client-ca=" + c.pki(ScalerCA+".crt"),
			},
			Env:   []string{"POD_NAMESPACE=ebbtide-system"},
			Ready: proc.HTTPReady("http://"+loopback(c.ports.ScalerMetrics)+"/readyz", nil),
		},
	}
	if c.replicas {
		second, err := c.scheduler(SecondScheduler, c.ports.Scheduler2, c.ports.SchedulerExplain2)
		if err != nil {
			return nil, err
		}
		controllers = append(controllers, second)
	}
	return controllers, nil
}

func (c *Cluster) controllerManager() (proc.Spec, error) {
	trust, err := c.ca.clientConfig("admin")
	return proc.Spec{
		Name: "kube-controller-manager", Path: c.tools.Bin("kube-controller-manager"),
		Args: []string{
			"--kubeconfig=" + c.Kubeconfig("kube-controller-manager"),
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.ports.Controllers),
			"--tls-cert-file=" + c.pki("controllers-serving.crt"), "--tls-private-key-file=" + c.pki("controllers-serving.key"),
			"--root-ca-file=" + c.ca.path(), "--service-account-private-key-file=" + c.pki("sa.key"),
			"--cluster-signing-cert-file=" + c.ca.path(), "--cluster-signing-key-file=" + c.pki("ca.key"),
			"--use-service-account-credentials", "--leader-elect=false", "--profiling=false",
			"--horizontal-pod-autoscaler-sync-period=2s",
			// The default of 20 requests a second ends no more than some three jobs in it.
			"--kube-api-qps=200", "--kube-api-burst=400",
		},
		Ready: proc.HTTPReady(fmt.Sprintf("https://127.0.0.1:%d/healthz", c.ports.Controllers), trust),
	}, err
}

// Bin is the path of a program of the project's own, as BuildProject left it.
func (c *Cluster) Bin(name string) string { return filepath.Join(c.root, "bin", name) }

// scheduler is a replica of the scheduler.
func (c *Cluster) scheduler(name string, port, explainPort int) (proc.Spec, error) {
	config, err := c.schedulerConfig(name, explainPort)
	if err != nil {
		return proc.Spec{}, err
	}
	trust, err := c.ca.clientConfig("admin")
	return proc.Spec{
		Name: name, Path: c.Bin("ebbtide-scheduler"),
		Args: []string{
			"--config=" + config,
			"--authentication-kubeconfig=" + c.Kubeconfig("scheduler"), "--authorization-kubeconfig=" + c.Kubeconfig("scheduler"),
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
			"--tls-cert-file=" + c.pki("scheduler-serving.crt"), "--tls-private-key-file=" + c.pki("scheduler-serving.key"),
		},
		Ready: proc.HTTPReady(fmt.Sprintf("https://127.0.0.1:%d/readyz", port), trust),
	}, err
}

// schedulerConfig writes the project's scheduler configuration with the credentials that it is to use, and beside its profile
// those of the stock scheduler to compare it with.
func (c *Cluster) schedulerConfig(name string, explainPort int) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.root, "manifests", "scheduler", "config", "scheduler-config.yaml"))
	if err != nil {
		return "", err
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		return "", err
	}
	config["clientConnection"] = map[string]any{"kubeconfig": c.Kubeconfig("scheduler"), "qps": 200, "burst": 400}
	if !c.replicas {
		config["leaderElection"] = map[string]any{"leaderElect": false}
	}
	ours, ok := config["profiles"].([]any)
	if !ok || len(ours) != 1 {
		return "", fmt.Errorf("the project's scheduler configuration has no single profile")
	}
	args := map[string]any{"explainAddress": fmt.Sprintf("127.0.0.1:%d", explainPort)}
	if c.draining {
		// On KWOK's nodes a pod's address is not where its worker is.
		args["draining"] = map[string]any{
			"listenAddress": c.SchedulerWorkers(), "anyAddress": true, "every": "1s", "longest": DrainLongest.String(), "promise": RoomWithin.String(),
		}
	}
	ours[0].(map[string]any)["pluginConfig"] = []any{map[string]any{"name": "DrainPack", "args": args}}
	var stock []any
	if text, err = os.ReadFile(c.path("config", "manifests", "stock-profiles.yaml")); err != nil {
		return "", err
	}
	if err := yaml.Unmarshal(text, &stock); err != nil {
		return "", err
	}
	config["profiles"] = append(ours, stock...)
	if text, err = yaml.Marshal(config); err != nil {
		return "", err
	}
	path := c.path("config", name+".yaml")
	return path, os.WriteFile(path, text, 0o644)
}

// kwokStages are the arguments that name what KWOK does to nodes and pods.
func (c *Cluster) kwokStages() ([]string, error) {
	args := []string{"--config=" + c.path("config", "manifests", "kwok-pod-stages.yaml")}
	for _, asset := range []string{"kwok-node-initialize", "kwok-node-heartbeat"} {
		files, err := filepath.Glob(filepath.Join(c.tools.Asset(asset), "node-*.yaml"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			args = append(args, "--config="+file)
		}
	}
	return args, nil
}
