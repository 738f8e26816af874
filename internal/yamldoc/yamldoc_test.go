package yamldoc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// A document is as large as its aliases make it: one that would fill the memory is an error before it does.
func TestAliases(t *testing.T) {
	nested := "a: &a [" + strings.Repeat("x,", 9) + "x]\n"
	for i := range 8 {
		nested += fmt.Sprintf("%c: &%[1]c [%s*%c]\n", 'b'+i, strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 9), 'a'+i)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"few":           {"a: &a {b: 1}\nc: *a\nd: *a\n", ""},
		"a large value": {"a: &a \"" + strings.Repeat("x", 1<<20) + "\"\nb: [" + strings.Repeat("*a,", 900) + "*a]\n", "line 1: its aliases make it larger than 16 MiB"},
		"nested":        {nested, "line 1: its aliases make it larger than 16 MiB"},
		"of itself":     {"a: &a [*a]\n", "line 1: its aliases make it larger than 16 MiB"},
		"in a key":      {"a: &a x\n*a : 1\n", ""},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		documents, err := Split([]byte(tc.text))
		if err == nil {
			_, err = documents[0].Object()
		}
		runtime.ReadMemStats(&after)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 64 {
			t.Errorf("%s: %d MiB", name, used)
		}
	}
}
