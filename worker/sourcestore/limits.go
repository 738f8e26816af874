package sourcestore

import "fmt"

// Limits bound what a repository may make the store do: whoever may push to a repository may make it as large as they like, and a few
// kilobytes are enough for a tree of a billion files. They hold before anything is written: refs and files are counted first, and
// git may not write a pack that is larger. A zero field is the default.
type Limits struct {
	// Refs of a mirror.
	Refs int
	// FetchBytes of one fetch, and of each file of a mirror.
	FetchBytes int64
	// Files and CheckoutBytes of one checkout.
	Files         int
	CheckoutBytes int64
}

// DefaultLimits hold what is not set. The largest public repositories stay below a fifth of each.
var DefaultLimits = Limits{Refs: 500_000, FetchBytes: 32 << 30, Files: 2_000_000, CheckoutBytes: 32 << 30}

// Check says which limit is negative.
func (l Limits) Check() error {
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"--max-refs", int64(l.Refs)}, {"--max-fetch-bytes", l.FetchBytes}, {"--max-files", int64(l.Files)}, {"--max-checkout-bytes", l.CheckoutBytes},
	} {
		if limit.value < 0 {
			return fmt.Errorf("%s %d: must not be negative; 0 is the default", limit.flag, limit.value)
		}
	}
	return nil
}

func (l Limits) orDefaults() Limits {
	if l.Refs == 0 {
		l.Refs = DefaultLimits.Refs
	}
	if l.FetchBytes == 0 {
		l.FetchBytes = DefaultLimits.FetchBytes
	}
	if l.Files == 0 {
		l.Files = DefaultLimits.Files
	}
	if l.CheckoutBytes == 0 {
		l.CheckoutBytes = DefaultLimits.CheckoutBytes
	}
	return l
}

// tooLarge is the error of a repository over a limit. Another attempt finds the same.
func tooLarge(what string, limit int64, flag string) error {
	return fmt.Errorf("the repository has more than %d %s: split it, or raise %s", limit, what, flag)
}
