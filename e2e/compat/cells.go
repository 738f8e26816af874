// Package compat tries the project with other releases of what it runs on: Kubernetes, KEDA and Karpenter. A cell is a cluster of certain releases
// and the steps that are run on it; each release is tried once with the others' defaults, and the oldest together.
package compat

import (
	"strings"

	"github.com/ebbtide-dev/ebbtide/e2e/toolchain"
)

// Cell is a cluster of certain releases.
type Cell struct {
	Name string
	// Releases take the place of the default ones.
	Releases []toolchain.Release
}

// Defaults are the releases of e2e/tools, by part.
var Defaults = map[string]string{"kubernetes": "1.36.3", "keda": "2.21.0", "karpenter": "1.14.1"}

// Parts in the order in which they are shown.
var Parts = []string{"kubernetes", "keda", "karpenter"}

// Cells are all of them. The newest releases together are those of kubernetes-1.37: the default KEDA and Karpenter are the newest.
func Cells() []Cell {
	cells := []Cell{{Name: "default"}}
	var oldest []toolchain.Release
	for _, part := range Parts {
		for i, r := range toolchain.Releases[part] {
			if i == 0 {
				oldest = append(oldest, r)
			}
			cells = append(cells, Cell{Name: part + "-" + minor(r.Version), Releases: []toolchain.Release{r}})
		}
	}
	return append(cells, Cell{Name: "oldest", Releases: oldest})
}

// Quick is the cell of the oldest Kubernetes, which make test runs.
func Quick() Cell {
	oldest := toolchain.Releases["kubernetes"][0]
	return Cell{Name: "kubernetes-" + minor(oldest.Version), Releases: []toolchain.Release{oldest}}
}

// CellOf is the cell with a name.
func CellOf(name string) (Cell, bool) {
	for _, cell := range Cells() {
		if cell.Name == name {
			return cell, true
		}
	}
	return Cell{}, false
}

// Version of a part in the cell.
func (c Cell) Version(part string) string {
	for _, r := range c.Releases {
		if r.Part == part {
			return r.Version
		}
	}
	return Defaults[part]
}

// minor is a version without its patch.
func minor(version string) string {
	parts := strings.Split(version, ".")
	return strings.Join(parts[:2], ".")
}
