package policy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// holidayFile is what a policy's iCalendar files say at the moment.
type holidayFile struct {
	sum  [sha256.Size]byte    // of the texts of all of them
	days []*calendar.Holidays // one a file; nil where it is not valid
	errs field.ErrorList
}

// read resolves and reads the iCalendar files of a policy, or returns nil if it has none.
func (f *parsedFiles) read(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) *holidayFile {
	if p.Spec.Calendar == nil {
		return nil
	}
	files := holidayFiles(p.Spec.Calendar)
	if len(files) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	read, sum := &holidayFile{}, sha256.New()
	for i, file := range files {
		text, days, errs := f.readFile(ctx, p, file, holidaysPath(p.Spec.Calendar, i).Child("ics"), resolver)
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
		read.days = append(read.days, days)
		read.errs = append(read.errs, errs...)
	}
	sum.Sum(read.sum[:0])
	return read
}

// holidaysPath is where the ith file of holidays stands.
func holidaysPath(c *v1alpha1.Calendar, i int) *field.Path {
	at := field.NewPath("spec", "calendar")
	if c.Holidays != nil {
		if i == 0 {
			return at.Child("holidays")
		}
		i--
	}
	return at.Child("additionalHolidays").Index(i)
}

// HolidayFile is one of a policy's iCalendar files, as it was read.
type HolidayFile struct {
	// Field where it stands: spec.calendar.holidays.
	Field string
	// Days of those events that the policy chooses.
	Days *calendar.Holidays
}

// HolidayFiles are those of a policy, in the order in which they beat each other.
func (p *Policy) HolidayFiles() []HolidayFile {
	var list []HolidayFile
	for i, days := range p.Calendar.Holidays() {
		list = append(list, HolidayFile{holidaysPath(p.spec.Calendar, i).String(), days})
	}
	return list
}

func (f *parsedFiles) readFile(
	ctx context.Context, p *v1alpha1.ScalingPolicy, file *v1alpha1.Holidays, path *field.Path, resolver Resolver,
) (string, *calendar.Holidays, field.ErrorList) {
	text, err := resolver.Resolve(ctx, p.Namespace, &file.ICS)
	if err == nil {
		var days *calendar.Holidays
		if days, err = f.holidays(text, p.Spec.Calendar.TimeZone); err == nil {
			skipped := days.NotUnderstood()
			if !file.Strict || len(skipped) == 0 {
				return text, days, nil
			}
			err = fmt.Errorf("%s; without strict it would be skipped", skipped[0])
		}
	}
	return text, nil, field.ErrorList{field.Invalid(path, field.OmitValueType{}, err.Error())}
}

// parsedFiles keeps what was read of iCalendar files, as thousands of policies may share one.
type parsedFiles struct {
	turns turns

	mu    sync.Mutex // never held while a file is read
	files map[fileInZone]*parsedFile
}

type fileInZone struct {
	sum  [sha256.Size]byte
	zone string
}

type parsedFile struct {
	once sync.Once
	days *calendar.Holidays
	err  error
}

// maxParsed bounds what is kept; past it everything is read anew.
const maxParsed = 64

func (f *parsedFiles) holidays(text, zoneName string) (*calendar.Holidays, error) {
	zone, err := calendar.LoadZone(zoneName)
	if err != nil {
		return nil, err
	}
	parsed := f.file(fileInZone{sha256.Sum256([]byte(text)), zoneName})
	parsed.once.Do(func() {
		f.turns.do(func() { parsed.days, parsed.err = calendar.ParseHolidays(text, zone) })
	})
	return parsed.days, parsed.err
}

func (f *parsedFiles) file(key fileInZone) *parsedFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files[key] == nil {
		if f.files == nil || len(f.files) >= maxParsed {
			f.files = map[fileInZone]*parsedFile{}
		}
		f.files[key] = &parsedFile{}
	}
	return f.files[key]
}
