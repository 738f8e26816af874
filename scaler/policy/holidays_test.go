package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
)

func holidayOn(date string) string {
	return strings.ReplaceAll("BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:"+date+
		"\nSUMMARY:Fair\nEND:VEVENT\nEND:VCALENDAR\n", "\n", "\r\n")
}

// withHolidays is a policy whose holidays are in a ConfigMap.
func withHolidays(name string) *v1alpha1.ScalingPolicy {
	return &v1alpha1.ScalingPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: name},
		Spec: v1alpha1.ScalingPolicySpec{
			Backlog: v1alpha1.Backlog{RabbitMQ: &v1alpha1.RabbitMQBacklog{URI: v1alpha1.ValueSource{Value: "amqp://x"}, Queue: "q"}},
			Calendar: &v1alpha1.Calendar{Holidays: &v1alpha1.Holidays{
				ICS:    v1alpha1.ValueSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "holidays"}, Key: "cz.ics"}},
				Limits: &v1alpha1.Limits{MaxReplicas: ptr.To[int32](1)},
			}},
		},
	}
}

// holidayResolver resolves every value by a function.
func holidayResolver(f func() (string, error)) Resolver {
	return resolverFunc(func(*v1alpha1.ValueSource) (string, error) { return f() })
}

// A policy's file of holidays may come after it, change and vanish.
func TestHolidaysFollow(t *testing.T) {
	b := newBundle(t)
	text, failure := "", errors.New("configMapKeyRef: configmaps \"holidays\" not found")
	resolver := resolverFunc(func(*v1alpha1.ValueSource) (string, error) { return text, failure })
	name := types.NamespacedName{Namespace: "scan", Name: "scans"}
	b.store.Set(t.Context(), withHolidays(name.Name), resolver)
	check := func(when, date, wantErr string, wantCap int32) {
		t.Helper()
		b.store.refreshHolidays(t.Context())
		p, err, _ := b.store.Get(name)
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: error %v, want %q", when, err, wantErr)
		}
		if p == nil {
			if wantCap != -1 {
				t.Errorf("%s: no policy in force", when)
			}
			return
		}
		day, parseErr := time.Parse(time.DateOnly, date)
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		if got := p.Calendar.Limits(day.Add(12 * time.Hour)).MaxReplicas; got != wantCap {
			t.Errorf("%s: cap %d on %s, want %d", when, got, date, wantCap)
		}
	}
	check("before the ConfigMap", "2026-05-01", `spec.calendar.holidays.ics: Invalid value: configMapKeyRef: configmaps "holidays" not found`, -1)
	text, failure = holidayOn("20260501"), nil
	check("it came", "2026-05-01", "", 1)
	text = holidayOn("20260502")
	check("it changed: not the old date", "2026-05-01", "", 100)
	check("it changed: the new date", "2026-05-02", "", 1)
	text = "nonsense"
	check("it is broken", "2026-05-02", "not an iCalendar file", 1)
	text, failure = "", errors.New("gone")
	check("it vanished", "2026-05-02", "gone", 1)
	text, failure = holidayOn("20260503"), nil
	check("it is back", "2026-05-03", "", 1)
	before := b.log.Len()
	b.store.refreshHolidays(t.Context())
	if b.log.Len() != before {
		t.Errorf("a file that did not change was taken up again: %s", b.log.String()[before:])
	}
}

// countingReader counts what is read of the API server.
type countingReader struct {
	client.Reader
	reads int
}

func (c *countingReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	c.reads++
	return c.Reader.Get(ctx, key, object, options...)
}

func TestResolveObjects(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "scan", Name: name} }
	reader := &countingReader{Reader: fake.NewClientBuilder().WithObjects(
		&corev1.Secret{ObjectMeta: meta("mq"), Data: map[string][]byte{"uri": []byte("amqp://x")}},
		&corev1.ConfigMap{ObjectMeta: meta("holidays"), Data: map[string]string{"cz.ics": "BEGIN"}},
	).Build()}
	resolver := newObjects(reader, time.Now)
	secret := func(name, key string) *v1alpha1.ValueSource {
		return &v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}}
	}
	for name, tc := range map[string]struct {
		namespace string
		value     *v1alpha1.ValueSource
		want, err string
	}{
		"in place": {"scan", &v1alpha1.ValueSource{Value: "v"}, "v", ""},
		"Secret":   {"scan", secret("mq", "uri"), "amqp://x", ""},
		"ConfigMap": {"scan", &v1alpha1.ValueSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "holidays"}, Key: "cz.ics"}}, "BEGIN", ""},
		"no such key":            {"scan", secret("mq", "url"), "", `secretKeyRef: Secret scan/mq has no key "url"`},
		"no such Secret":         {"scan", secret("mq2", "uri"), "", `secretKeyRef: secrets "mq2" not found`},
		"of another namespace":   {"other", secret("mq", "uri"), "", `secretKeyRef: secrets "mq" not found`},
		"environment variable":   {"scan", &v1alpha1.ValueSource{Env: "X"}, "", "env: is for policies read from files"},
		"a file of the scaler's": {"scan", &v1alpha1.ValueSource{File: "/etc/passwd"}, "", "file: is for policies read from files"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := resolver.Resolve(t.Context(), tc.namespace, tc.value)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q, %v; want %q, %q", got, err, tc.want, tc.err)
			}
		})
	}
	before := reader.reads
	for range 100 {
		if _, err := resolver.Resolve(t.Context(), "scan", secret("mq", "uri")); err != nil {
			t.Fatal(err)
		}
	}
	if reader.reads != before {
		t.Errorf("%d more reads for policies that share a Secret", reader.reads-before)
	}
}

func TestTenThousandPolicies(t *testing.T) {
	b := newBundle(t)
	const files, each = 10, 1000 / raceFactor
	for file := range files {
		var text strings.Builder
		for i := range each {
			text.WriteString("---\n" + strings.Replace(scans, "name: scans, ", fmt.Sprintf("name: scans-%d-%d, ", file, i), 1))
		}
		if err := os.WriteFile(filepath.Join(b.dir, fmt.Sprintf("%d.yaml", file)), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	b.directory.Load(t.Context())
	t.Logf("loaded in %s", time.Since(begin))
	if n := len(b.store.Names()); n != files*each || b.limit(fmt.Sprintf("scans-9-%d", each-1)) != 7 {
		t.Errorf("%d policies in force, cap %d", n, b.limit(fmt.Sprintf("scans-9-%d", each-1)))
	}
	if took := time.Since(begin); took > 5*time.Minute { // seconds, unless the machine is busy with other tests
		t.Errorf("it took %s", took)
	}
}

// Ten thousand policies with a Secret each, that look their credentials up again every 15 s, read no more than some twenty of them a second;
// so does a Secret that is missing. A failing source takes up its rotated credentials within seconds all the same.
func TestSecretsAreReadAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := &countingReader{Reader: fake.NewClientBuilder().Build()}
		resolver := newObjects(reader, time.Now)
		ref := func(i int) *v1alpha1.ValueSource {
			return &v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: fmt.Sprint("s", i)}, Key: "uri"}}
		}
		const policies = 10_000
		begin := time.Now()
		for round := 0; time.Since(begin) < 30*time.Minute; round++ {
			if round == 40 { // all have been read
				reader.reads, begin = 0, begin.Add(0)
			}
			for i := range policies {
				if _, err := resolver.Resolve(t.Context(), "scan", ref(i)); err == nil {
					t.Fatal("a Secret that does not exist is read")
				}
			}
			time.Sleep(15 * time.Second)
		}
		if rate := float64(reader.reads) / (20 * 60); rate > 25 {
			t.Errorf("%.0f reads a second", rate)
		}
		before := reader.reads
		fresh := context.WithValue(t.Context(), freshKey{}, true)
		time.Sleep(2 * objectAge)
		if _, err := resolver.Resolve(fresh, "scan", ref(7)); err == nil || reader.reads != before+1 {
			t.Errorf("%d reads after a failure, %v; want one", reader.reads-before, err)
		}
	})
}

// A key that another policy asks for later is read, too, and what nobody refers to is not kept.
func TestKeysOfAnObject(t *testing.T) {
	reader := &countingReader{Reader: fake.NewClientBuilder().WithObjects(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "scan", Name: "mq"},
		Data:       map[string][]byte{"user": []byte("u"), "password": []byte("p"), "large": make([]byte, 2<<20), "other": []byte("o")},
	}).Build()}
	resolver := newObjects(reader, time.Now)
	key := func(key string) (string, error) {
		return resolver.Resolve(t.Context(), "scan", &v1alpha1.ValueSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "mq"}, Key: key}})
	}
	for name, want := range map[string]string{"user": "u", "password": "p"} {
		if got, err := key(name); got != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := key("large"); err == nil || !strings.Contains(err.Error(), "is larger than 1048576 bytes") {
		t.Errorf("error %v", err)
	}
	for _, kept := range resolver.kept {
		if values, err := kept.values.Get(t.Context(), time.Hour); err != nil || len(values.of) != 3 {
			t.Errorf("%d keys are kept, %v", len(values.of), err)
		}
	}
}

// More files than are kept of are not read again and again while they do not change.
func TestHolidaysAreReadOnce(t *testing.T) {
	b := newBundle(t)
	texts := map[string]string{}
	for i := range maxParsed + 10 {
		name := fmt.Sprint("scans-", i)
		texts[name] = holidayOn(fmt.Sprintf("2026%02d%02d", i%12+1, i/12+1))
		b.store.Set(t.Context(), withHolidays(name), holidayResolver(func() (string, error) { return texts[name], nil }))
	}
	before := maps.Clone(b.store.parsed.files)
	b.store.refreshHolidays(t.Context())
	if !maps.Equal(before, b.store.parsed.files) {
		t.Error("files that did not change are read again")
	}
	texts["scans-7"] = holidayOn("20270107")
	b.store.refreshHolidays(t.Context())
	p, _, _ := b.store.Get(types.NamespacedName{Namespace: "scan", Name: "scans-7"})
	if got := p.Calendar.Limits(time.Date(2027, 1, 7, 12, 0, 0, 0, time.UTC)).MaxReplicas; got != 1 {
		t.Errorf("cap %d on the day of the new file, want 1", got)
	}
}

// A panic while what a user wrote is read is an error of that policy, counted, and the version before it stays in force.
func TestPanicWhileReading(t *testing.T) {
	b := newBundle(t)
	told := 0
	b.store.OnPanic(func(any) { told++ })
	name := types.NamespacedName{Namespace: "scan", Name: "scans"}
	odd := false
	resolver := holidayResolver(func() (string, error) {
		if odd {
			panic("odd")
		}
		return holidayOn("20260501"), nil
	})
	b.store.Set(t.Context(), withHolidays(name.Name), resolver)
	odd = true
	b.store.refreshHolidays(t.Context())
	b.store.Set(t.Context(), withHolidays(name.Name), resolver)
	p, err, _ := b.store.Get(name)
	if p == nil || err == nil || !strings.Contains(err.Error(), "a fault of the scaler itself, please report it: odd") || told != 2 {
		t.Errorf("in force: %v, error %v, told %d times", p != nil, err, told)
	}
	odd = false
	b.store.Set(t.Context(), withHolidays(name.Name), resolver)
	if _, err, _ := b.store.Get(name); err != nil {
		t.Error(err)
	}
}
