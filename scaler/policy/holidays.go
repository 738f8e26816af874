package policy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebbtide-dev/ebbtide/api/v1alpha1"
	"github.com/ebbtide-dev/ebbtide/scaler/backlog"
	"github.com/ebbtide-dev/ebbtide/scaler/calendar"
)

// holidayFile is what a policy's iCalendar files say at the moment.
type holidayFile struct {
	sum  [sha256.Size]byte    // of the texts of all of them
	days []*calendar.Holidays // one a file; nil where it is not valid
	errs field.ErrorList
}

// holidayTexts are a policy's iCalendar files as they were looked up.
type holidayTexts struct {
	texts []string
	errs  []error           // why one could not be; nil: it could
	sum   [sha256.Size]byte // of all that was found
}

// lookUpHolidays looks the iCalendar files of a policy up, or returns nil if it has none.
func lookUpHolidays(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) *holidayTexts {
	if p.Spec.Calendar == nil {
		return nil
	}
	files := holidayFiles(p.Spec.Calendar)
	if len(files) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, sum := &holidayTexts{}, sha256.New()
	for _, file := range files {
		text, err := resolver.Resolve(ctx, p.Namespace, &file.ICS)
		fmt.Fprintf(sum, "%d %v\n%s", len(text), err == nil, text)
		found.texts, found.errs = append(found.texts, text), append(found.errs, err)
	}
	sum.Sum(found.sum[:0])
	return found
}

// read looks the iCalendar files of a policy up and reads them, or returns nil if it has none.
func (f *parsedFiles) read(ctx context.Context, p *v1alpha1.ScalingPolicy, resolver Resolver) *holidayFile {
	found := lookUpHolidays(ctx, p, resolver)
	if found == nil {
		return nil
	}
	read := &holidayFile{sum: found.sum}
	for i, file := range holidayFiles(p.Spec.Calendar) {
		days, err := (*calendar.Holidays)(nil), found.errs[i]
		if err == nil {
			days, err = f.readFile(found.texts[i], file, p.Spec.Calendar.TimeZone)
		}
		read.days = append(read.days, days)
		if err != nil {
			read.errs = append(read.errs, field.Invalid(holidaysPath(p.Spec.Calendar, i).Child("ics"), field.OmitValueType{}, err.Error()))
		}
	}
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

// readFile reads a file. Days are nil where there is an error.
func (f *parsedFiles) readFile(text string, file *v1alpha1.Holidays, zone string) (*calendar.Holidays, error) {
	days, err := f.holidays(text, zone)
	if err != nil {
		return nil, err
	}
	if skipped := days.NotUnderstood(); file.Strict && len(skipped) > 0 {
		return nil, fmt.Errorf("%s; without strict it would be skipped", skipped[0])
	}
	return days, nil
}

// parsedFiles keeps what was read of iCalendar files, as thousands of policies may share one.
type parsedFiles struct {
	turns turns
	guard backlog.SampleBounds

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

// maxParsed bounds what is kept; past it everything is read again.
const maxParsed = 64

func (f *parsedFiles) holidays(text, zoneName string) (*calendar.Holidays, error) {
	zone, err := calendar.LoadZone(zoneName)
	if err != nil {
		return nil, err
	}
	parsed := f.file(fileInZone{sha256.Sum256([]byte(text)), zoneName})
	parsed.once.Do(func() {
		f.turns.do(func() {
			parsed.err = f.guard.Guard(func() (err error) {
				parsed.days, err = calendar.ParseHolidays(text, zone)
				return err
			})
		})
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
