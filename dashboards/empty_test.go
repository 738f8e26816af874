package dashboards

import "testing"

// A tile without data says so and is not red: it has the first color of its thresholds then.
func TestEmptyTilesAreNoAlarm(t *testing.T) {
	for name, d := range All() {
		for p := range each(d.Panels) {
			if p.Type == "stat" && (p.FieldConfig.Defaults.NoValue == "" || p.FieldConfig.Defaults.Thresholds.Steps[0].Color == "red") {
				t.Errorf("%s, %s: without data it is %q in %s", name, p.Title, p.FieldConfig.Defaults.NoValue, p.FieldConfig.Defaults.Thresholds.Steps[0].Color)
			}
		}
	}
}
