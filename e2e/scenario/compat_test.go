package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/validation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"github.com/ebbtide-dev/ebbtide/e2e/cluster"
	"github.com/ebbtide-dev/ebbtide/e2e/compat"
	"github.com/ebbtide-dev/ebbtide/e2e/scans"
)

// The oldest API server that the scheduler runs with. make compat plays the rest.
func TestCompat(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	root, tools, err := cluster.Prepare(ctx, scans.Programs...)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ebbtide-compat-")
	if err != nil {
		t.Fatal(err)
	}
	cell := compat.Quick()
	cell.Check = checkRights
	if err := compat.Play(ctx, cell, root, tools, dir, os.Stderr, "packing", "leader change", "RBAC", "charts"); err != nil {
		t.Fatalf("%v (logs are in %s)", err, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Log("remove the cluster's folder:", err)
	}
}

// checkRights checks what a run has no occasion to ask for: with the roles of the cluster and of the manifests, the scheduler may do all that
// the kube-scheduler of its own release may.
func checkRights(ctx context.Context, c *cluster.Cluster) error {
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return err
	}
	bindings, err := client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var granted []rbacv1.PolicyRule
	for _, binding := range bindings.Items {
		if !slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool {
			return s.Kind == rbacv1.ServiceAccountKind && s.Name == "ebbtide-scheduler" && s.Namespace == "ebbtide-system"
		}) {
			continue
		}
		role, err := client.RbacV1().ClusterRoles().Get(ctx, binding.RoleRef.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		granted = append(granted, role.Rules...)
	}
	for _, role := range bootstrappolicy.ClusterRoles() {
		if role.Name != "system:kube-scheduler" && role.Name != "system:volume-scheduler" {
			continue
		}
		if ok, missing := validation.Covers(granted, role.Rules); !ok {
			return fmt.Errorf("the scheduler lacks rights of %s: %+v", role.Name, missing)
		}
	}
	return nil
}
