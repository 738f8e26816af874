package policy

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// holidayFile is what a policy's iCalendar file says at the moment.
type holidayFile struct {
	text string
	days *calendar.Holidays // nil where errs is not
	errs field.ErrorList
}

// read resolves and reads the iCalendar file of a policy, or returns nil if it has none.
func (f *parsedFiles) read(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) *holidayFile {
	if p.Spec.Calendar == nil || p.Spec.Calendar.Holidays == nil {
		return nil
	}
	source, path := &p.Spec.Calendar.Holidays.ICS, field.NewPath("spec", "calendar", "holidays", "ics")
	if errs := v1alpha1.ValidateValueSource(source, path); len(errs) > 0 {
		return &holidayFile{errs: errs}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	text, err := resolver.Resolve(ctx, p.Namespace, source)
	if err == nil {
		var days *calendar.Holidays
		if days, err = f.holidays(text, p.Spec.Calendar.TimeZone); err == nil {
			return &holidayFile{text: text, days: days}
		}
	}
	return &holidayFile{text: text, errs: field.ErrorList{field.Invalid(path, field.OmitValueType{}, err.Error())}}
}

// parsedFiles keeps what was read of iCalendar files, as thousands of policies may share one.
type parsedFiles struct {
	mu    sync.Mutex
	files map[fileInZone]*calendar.Holidays
}

type fileInZone struct{ text, zone string }

// maxParsed bounds what is kept; past it everything is read anew.
const maxParsed = 64

func (f *parsedFiles) holidays(text, zoneName string) (*calendar.Holidays, error) {
	zone, err := calendar.LoadZone(zoneName)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	file := fileInZone{text, zoneName}
	if days := f.files[file]; days != nil {
		return days, nil
	}
	days, err := calendar.ParseHolidays(text, zone)
	if err != nil {
		return nil, err
	}
	if f.files == nil || len(f.files) >= maxParsed {
		f.files = map[fileInZone]*calendar.Holidays{}
	}
	f.files[file] = days
	return days, nil
}
