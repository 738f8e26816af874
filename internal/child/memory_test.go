package child

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of what a kernel shows of cgroups, version 1, 2 or both, in a container and outside of one, the one that counts memory is read.
func TestOwnMemory(t *testing.T) {
	const v2, v1 = "low 0\nhigh 3\nmax 7\noom 2\noom_kill 4\noom_group_kill 1\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"
	for name, tc := range map[string]struct {
		self   string
		files  map[string]string
		kills  int
		reason string
	}{
		"v2, in a container":                        {"0::/\n", map[string]string{"memory.events": v2, "memory.max": "67108864\n"}, 4, "at the container's limit of 64 MiB"},
		"v2, a path of the host's, its own mounted": {"0::/kubepods.slice/pod1/abc\n", map[string]string{"memory.events": v2, "memory.max": "67108864\n"}, 4, "limit of 64 MiB"},
		"v2, outside of a container": {"0::/system.slice/worker\n",
			map[string]string{"system.slice/worker/memory.events": v2, "system.slice/worker/memory.max": "1048576\n", "memory.events": "oom_kill 9\n"}, 4, "limit of 1 MiB"},
		"v2, without a limit":                   {"0::/\n", map[string]string{"memory.events": v2, "memory.max": "max\n"}, 4, "the kernel killed the command"},
		"v2, a name with colons":                {"0::/a:b:c\n", map[string]string{"a:b:c/memory.events": v2}, 4, "the kernel killed the command"},
		"v2, none has died":                     {"0::/\n", map[string]string{"memory.events": strings.Replace(v2, "oom_kill 4", "oom_kill 0", 1)}, 0, "the kernel"},
		"v2, before 4.13, which counts no kill": {"0::/\n", map[string]string{"memory.events": "low 0\nhigh 0\nmax 0\noom 3\n"}, -1, "the kernel"},
		"v1": {"12:pids:/a\n4:memory:/docker/abc\n0::/a\n",
			map[string]string{"memory/memory.oom_control": v1, "memory/memory.limit_in_bytes": "134217728\n"}, 5, "limit of 128 MiB"},
		"both, and memory is v1's": {"0::/user.slice\n4:memory:/x\n1:name=systemd:/x\n",
			map[string]string{"memory/x/memory.oom_control": v1, "memory/x/memory.limit_in_bytes": "134217728\n", "unified/user.slice/cgroup.procs": "1\n"}, 5, "limit of 128 MiB"},
		"a file that is not the kernel's": {"0::/\n", map[string]string{"memory.events": "oom_kill many\n"}, -1, "the kernel"},
		"nothing":                         {"", nil, -1, "the kernel"},
	} {
		root := t.TempDir()
		for path, text := range tc.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := ownMemory(root, tc.self)
		if kills := m.Kills(); kills != tc.kills || !strings.Contains(m.Reason(), tc.reason) {
			t.Errorf("%s: %d kills, %q; want %d, %q", name, kills, m.Reason(), tc.kills, tc.reason)
		}
	}
	// A kill that happens while a command runs is seen.
	root := t.TempDir()
	var m Memory
	for n, text := range []string{"oom 0\noom_kill 0\n", "oom 1\noom_kill 1\n"} {
		if err := os.WriteFile(filepath.Join(root, "memory.events"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			m = ownMemory(root, "0::/\n")
		}
		if m.Kills() != n {
			t.Errorf("%d kills, want %d", m.Kills(), n)
		}
	}
}
