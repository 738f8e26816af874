package recommend

import (
	"embed"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/ebbtide-dev/ebbtide/scheduler-plugin/packing"
	"github.com/ebbtide-dev/ebbtide/simulator"
)

//go:embed shapes/*.yaml
var shippedLists embed.FS

// Shipped are the names of the price lists that are part of the program.
func Shipped() []string { return []string{"aws", "gcp", "azure"} }

// PriceList is a list of node shapes with prices.
type PriceList struct {
	// Date of the prices, as a person wrote it.
	Date     string `json:"date"`
	Currency string `json:"currency"`
	Region   string `json:"region,omitempty"`
	// Kubelet is whose formula says what the kubelet reserves: eks, gke, aks; empty: Overhead of PriceList.Candidates is all.
	Kubelet string       `json:"kubelet,omitempty"`
	Shapes  []PriceShape `json:"shapes"`
}

// PriceShape is a shape as it is sold.
type PriceShape struct {
	Name string `json:"name"`
	// Family whose sizes may be mixed in one NodePool; empty: it is not mixed.
	Family string            `json:"family,omitempty"`
	CPU    resource.Quantity `json:"cpu"`
	Memory resource.Quantity `json:"memory"`
	// Pods is the most that a node takes; 0: 110.
	Pods int64 `json:"pods,omitempty"`
	// Price of an hour on demand, and Spot of spot capacity; 0 for one that is not sold so.
	Price float64 `json:"price,omitempty"`
	Spot  float64 `json:"spot,omitempty"`
	// Allocatable is what is left for pods, DaemonSets included; it is worked out where it is not given.
	Allocatable *struct {
		CPU    resource.Quantity `json:"cpu"`
		Memory resource.Quantity `json:"memory"`
	} `json:"allocatable,omitempty"`
}

// ReadPriceList reads a price list that is shipped, by its name, or a file.
func ReadPriceList(name string) (PriceList, error) {
	var list PriceList
	var text []byte
	var err error
	if slices.Contains(Shipped(), name) {
		text, err = shippedLists.ReadFile("shapes/" + name + ".yaml")
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return list, fmt.Errorf("%w; shipped lists are %s", err, strings.Join(Shipped(), ", "))
	}
	if err := yaml.UnmarshalStrict(text, &list); err != nil {
		return list, fmt.Errorf("%s: %w", name, err)
	}
	return list, list.check(name)
}

func (l *PriceList) check(name string) error {
	if len(l.Shapes) == 0 {
		return fmt.Errorf("%s: shapes is empty, want a list of name, cpu, memory and price", name)
	}
	if _, known := kubelets[l.Kubelet]; !known {
		return fmt.Errorf("%s: kubelet is %q, want eks, gke, aks or nothing", name, l.Kubelet)
	}
	seen := map[string]bool{}
	for i, s := range l.Shapes {
		finite := func(v float64) bool { return v >= 0 && v < math.Inf(1) }
		switch {
		case s.Name == "" || seen[s.Name]:
			return fmt.Errorf("%s: shapes[%d].name is %q, want a name that no other shape has", name, i, s.Name)
		case s.CPU.Sign() <= 0 || s.Memory.Sign() <= 0 || s.Pods < 0:
			return fmt.Errorf("%s: shape %s: want cpu and memory above 0, and pods not below", name, s.Name)
		case !finite(s.Price) || !finite(s.Spot) || s.Price == 0 && s.Spot == 0:
			return fmt.Errorf("%s: shape %s: price is %v and spot %v, want at least one above 0", name, s.Name, s.Price, s.Spot)
		}
		seen[s.Name] = true
	}
	return nil
}

// ShapeSet is a choice of shapes for a NodePool.
type ShapeSet struct {
	Name   string            `json:"name"`
	Shapes []simulator.Shape `json:"-"`
}

// Candidates are the choices that a list leaves: each shape alone, and of each family all sizes up to one, from which the node autoscaler takes
// the cheapest that fits. Shapes that cost as much as a larger one are left out. Reserved is what DaemonSets request on every node, and the
// kubelet too where the list names no formula.
func (l *PriceList) Candidates(spot bool, reserved packing.Amounts) ([]ShapeSet, error) {
	var families []string
	byFamily := map[string][]simulator.Shape{}
	var sets []ShapeSet
	for _, s := range l.Shapes {
		shape, ok := l.shape(&s, spot, reserved)
		if !ok {
			continue
		}
		worse := slices.ContainsFunc(l.Shapes, func(other PriceShape) bool {
			o, ok := l.shape(&other, spot, reserved)
			return ok && o.Price < shape.Price && o.Capacity.Fit(shape.Capacity) && o.Size == shape.Size
		})
		if worse {
			continue
		}
		sets = append(sets, ShapeSet{s.Name, []simulator.Shape{shape}})
		if s.Family != "" {
			if byFamily[s.Family] == nil {
				families = append(families, s.Family)
			}
			byFamily[s.Family] = append(byFamily[s.Family], shape)
		}
	}
	for _, name := range families {
		family := byFamily[name]
		slices.SortStableFunc(family, func(a, b simulator.Shape) int { return int(a.Size[0] - b.Size[0]) })
		for n := 2; n <= len(family); n++ {
			sets = append(sets, ShapeSet{family[0].Name + " to " + family[n-1].Name, family[:n:n]})
		}
	}
	if len(sets) == 0 {
		return nil, errors.New("no shape of the list has a price and room for pods")
	}
	return sets, nil
}

// Find makes a set of shapes of these names; what the list does not have is left out.
func (l *PriceList) Find(names []string, spot bool, reserved packing.Amounts) ShapeSet {
	set := ShapeSet{Name: strings.Join(names, ", ")}
	for i := range l.Shapes {
		if slices.Contains(names, l.Shapes[i].Name) {
			if shape, ok := l.shape(&l.Shapes[i], spot, reserved); ok {
				set.Shapes = append(set.Shapes, shape)
			}
		}
	}
	return set
}

// shape is what the list's shape has for pods; false where it has no price or no room.
func (l *PriceList) shape(s *PriceShape, spot bool, reserved packing.Amounts) (simulator.Shape, bool) {
	price := s.Price
	if spot {
		price = s.Spot
	}
	size := packing.Amounts{s.CPU.MilliValue(), s.Memory.Value(), 0, s.Pods}
	if size[3] == 0 {
		size[3] = 110
	}
	capacity := size
	if s.Allocatable != nil {
		capacity[0], capacity[1] = s.Allocatable.CPU.MilliValue(), s.Allocatable.Memory.Value()
	} else {
		capacity = kubelets[l.Kubelet](size)
	}
	capacity = capacity.Minus(reserved)
	return simulator.Shape{Name: s.Name, Capacity: capacity, Size: size, Price: price}, price > 0 && capacity[0] > 0 && capacity[1] > 0 && capacity[3] > 0
}

// kubelets are the formulas by which clouds publish what of a node's size is left when the kubelet and the system have their share.
var kubelets = map[string]func(size packing.Amounts) packing.Amounts{
	"": func(size packing.Amounts) packing.Amounts { return size },
	// The AMI's bootstrap script: CPU by steps, memory by the most pods, and the eviction threshold; Karpenter takes 7.5% off the memory for what
	// the hypervisor keeps (VM_MEMORY_OVERHEAD_PERCENT).
	"eks": func(size packing.Amounts) packing.Amounts {
		size[0] -= cpuBySteps(size[0])
		size[1] = size[1]*925/1000 - (255+11*size[3]+100)<<20
		return size
	},
	// https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes: CPU and memory by steps, and the eviction threshold.
	"gke": func(size packing.Amounts) packing.Amounts {
		size[0] -= cpuBySteps(size[0])
		const gib = 1 << 30
		reserved, left := int64(0), size[1]
		for _, step := range []struct{ upTo, percent int64 }{{4 * gib, 25}, {4 * gib, 20}, {8 * gib, 10}, {112 * gib, 6}, {math.MaxInt64 / 100, 2}} {
			part := min(left, step.upTo)
			reserved, left = reserved+part/100*step.percent, left-part
		}
		size[1] -= reserved + 100<<20
		return size
	},
	// https://learn.microsoft.com/azure/aks/node-resource-reservations, from 1.29 on: CPU by size, the lesser of 20 MB a pod and 50 MB, and a quarter of
	// the memory, and the eviction threshold.
	"aks": func(size packing.Amounts) packing.Amounts {
		reserved := int64(60)
		for _, step := range []struct{ cores, reserved int64 }{{2, 100}, {4, 140}, {8, 180}, {16, 260}, {32, 420}, {64, 740}} {
			if size[0] >= 1000*step.cores {
				reserved = step.reserved
			}
		}
		size[0] -= reserved
		size[1] -= min((20*size[3]+50)*1e6, size[1]/4) + 100<<20
		return size
	},
}

// cpuBySteps is 6% of the first core, 1% of the second, 0.5% of the next two and 0.25% of all above.
func cpuBySteps(milli int64) (reserved int64) {
	part := func(from, to int64) float64 { return float64(max(0, min(milli, to)-from)) }
	return int64(math.Ceil(part(0, 1000)*0.06 + part(1000, 2000)*0.01 + part(2000, 4000)*0.005 + part(4000, math.MaxInt64)*0.0025))
}

// DaemonSets is what they request on a node unless somebody says otherwise: 230 millicores and 512 MiB.
var DaemonSets = packing.Amounts{230, 512 << 20, 0, 4}
