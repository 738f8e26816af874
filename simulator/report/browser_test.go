package report_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ebbtide-dev/ebbtide/simulator"
	"github.com/ebbtide-dev/ebbtide/simulator/report"
)

// browser starts a browser that ends with the test. Without one the test is skipped; in CI, where it is installed, that is a failure.
func browser(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real browser")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("in CI this must run: ", err)
		}
		t.Skip(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1400, 1000))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// seen is what a browser shows of the page.
type seen struct {
	Ink, Ground string
	// Pictures, those of them that are too small, lines and areas without an extent, cells of the week.
	Pictures, Small, Empty, Cells int
	// Overflow is how much wider the page is than its window, in pixels.
	Overflow int
	// Clipped are texts of pictures that reach out of them, and Overlapping labels of points that hide each other.
	Clipped, Overlapping []string
	// Folded are details that are closed when the page opens.
	Folded int
}

const look = `(() => {
	const style = getComputedStyle(document.body), all = selector => [...document.querySelectorAll(selector)];
	const box = e => e.getBoundingClientRect();
	const folded = all('details:not([open])');
	folded.forEach(e => e.open = true);
	const labels = all('svg text.label');
	return {
		Ink: style.color, Ground: style.backgroundColor,
		Pictures: all('svg').length, Small: all('svg').filter(e => box(e).width < 300 || box(e).height < 60).length,
		Empty: all('polyline, polygon, circle').filter(e => box(e).width < 1 && box(e).height < 1).length,
		Cells: all('.week td').length, Folded: folded.length,
		Overlapping: labels.filter((e, i) => labels.some((f, j) => { const a = box(e), b = box(f);
			return i < j && a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom; })).map(e => e.textContent),
		Overflow: document.documentElement.scrollWidth - innerWidth,
		Clipped: all('svg text').filter(e => { const a = box(e), b = box(e.ownerSVGElement);
			return a.left < b.left - 1 || a.top < b.top - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1; }).map(e => e.textContent),
	};
})()`

func watchNetwork(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
	_, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
	return chromedp.Void{}, err
}

// The page shows all of its pictures in a real browser, in light and dark, on a wide screen and a phone's, and asks for nothing else.
func TestPageInBrowser(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Prague")
	if err != nil {
		t.Fatal(err)
	}
	trace := simulator.Weeks(rand.New(rand.NewPCG(1, 1)), 2, 300, zone)
	var runs []report.Run
	for i := range 8 { // close to each other in pairs, so that labels have to make way
		system := simulator.Defaults()
		system.Origin, system.Scaler, system.PollEvery = trace.Origin, simulator.RabbitMQ(i%2 == 0), time.Duration(10+5*(i/2))*time.Second
		out, err := system.Run(trace.Jobs)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, report.Run{Name: fmt.Sprintf("<b>over & under</b>, the %dth configuration", i), Ours: i%2 == 0, Front: i < 2, Outcome: out})
	}
	page := filepath.Join(t.TempDir(), "report.html")
	file, err := os.Create(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Write(file, runs, zone); err != nil {
		t.Fatal(err)
	}
	if info, err := file.Stat(); err != nil || info.Size() > 1<<20 {
		t.Errorf("the page has %d bytes, error %v", info.Size(), err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}

	ctx := browser(t)
	var events sync.Mutex
	var asked, complaints []string
	err = chromedp.Listen(ctx, func(event any) {
		events.Lock()
		defer events.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			asked = append(asked, e.Request.URL)
		case *cdpruntime.EventConsoleAPICalled, *cdpruntime.EventExceptionThrown:
			complaints = append(complaints, fmt.Sprintf("%+v", e))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	grounds := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		prefer := func(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			return chromedp.Void{}, err
		}
		for _, width := range []int64{1400, 1280, 390} {
			err := chromedp.Do(ctx, watchNetwork, prefer, chromedp.EmulateViewport(width, 900), chromedp.Navigate("file://"+page))
			if err != nil {
				t.Fatal(err)
			}
			got, err := chromedp.Run(ctx, chromedp.Evaluate[seen](look))
			if err != nil {
				t.Fatal(err)
			}
			title, err := chromedp.Run(ctx, chromedp.Text("summary"))
			if err != nil {
				t.Fatal(err)
			}
			if got.Pictures != 1+5+3*len(runs) || got.Folded != len(runs) || got.Small > 0 && width > 1000 || got.Empty > 0 || got.Cells != 7*24*len(runs) {
				t.Errorf("%s, %d pixels: %+v", scheme, width, got)
			}
			if got.Overflow > 0 || len(got.Clipped) > 0 || len(got.Overlapping) > 0 {
				t.Errorf("%s, %d pixels: %d pixels too wide, clipped %q, overlapping %q", scheme, width, got.Overflow, got.Clipped, got.Overlapping)
			}
			if got.Ink == got.Ground || title != runs[0].Name {
				t.Errorf("%s: %s on %s, title %q", scheme, got.Ink, got.Ground, title)
			}
			grounds[got.Ground] = true
		}
	}
	if len(grounds) != 2 {
		t.Errorf("light and dark have the same ground: %v", grounds)
	}
	events.Lock()
	defer events.Unlock()
	for _, url := range asked {
		if url != "file://"+page {
			t.Errorf("the page asks for %s", url)
		}
	}
	if len(asked) == 0 || len(complaints) > 0 {
		t.Errorf("asked for %q; %q", asked, complaints)
	}
}
