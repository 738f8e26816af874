package policy

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

// forbidden is a reader that may read nothing.
type forbidden struct{ client.Reader }

func (forbidden) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, nil)
}

// A Secret that the scaler may not read is an error that says how to allow it.
func TestForbiddenSecret(t *testing.T) {
	value := &v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "mq"}, Key: "uri"}}
	_, err := newObjects(forbidden{}, time.Now).Resolve(t.Context(), "scan", value)
	if err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "scaler.secretNamespaces") {
		t.Errorf("%v: want forbidden, and how to allow it", err)
	}
}
