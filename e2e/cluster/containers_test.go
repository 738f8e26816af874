package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestParseTaskEvent(t *testing.T) {
	const begin = "2026-03-02 09:00:00.12345678 +0000 UTC k8s.io "
	at := time.Date(2026, 3, 2, 9, 0, 0, 123456780, time.UTC)
	for line, want := range map[string]TaskEvent{
		begin + `/tasks/start {"container_id":"6f1c","pid":42}`:                                        {Container: "6f1c", At: at},
		begin + `/tasks/exit {"container_id":"6f1c","id":"6f1c","pid":42,"exited_at":"2026-03-02T09"}`: {Container: "6f1c", Ended: true, At: at},
		begin + `/tasks/exit {"container_id":"6f1c","id":"probe","pid":43}`:                            {}, // of a probe in it
		begin + `/tasks/exec-started {"container_id":"6f1c","exec_id":"probe"}`:                        {},
		begin + `/images/create {"name":"ghcr.io/ebbtide-dev/pause:e2e"}`:                              {},
		"": {},
	} {
		got, ok := parseTaskEvent(line)
		if ok != (want != TaskEvent{}) || ok && (got.Container != want.Container || got.Ended != want.Ended || !got.At.Equal(want.At)) {
			t.Errorf("%s: %+v, %v, want %+v", line, got, ok, want)
		}
	}
}

func TestImportedNames(t *testing.T) {
	const out = "unpacking docker.io/library/scanner:dev (sha256:6f1c)...done\nunpacking registry.example/a:1 (sha256:71aa)...done\nDONE\n"
	if got := importedNames(out); !slices.Equal(got, []string{"docker.io/library/scanner:dev", "registry.example/a:1"}) {
		t.Errorf("%q", got)
	}
}
