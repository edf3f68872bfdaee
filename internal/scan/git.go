package scan

import (
	"context"
	"fmt"
	"slices"

	"github.com/baileyhq/bailey/internal/gitrepo"
)

// Staged looks at the files of a repository that are about to be committed and
// returns what stands on their new lines. Of archives it returns everything.
func (s *Scanner) Staged(ctx context.Context, repo *gitrepo.Repo) ([]Finding, error) {
	changes, err := repo.Staged(ctx)
	if err != nil {
		return nil, fmt.Errorf("scan the staged files: %w", err)
	}
	changes = slices.DeleteFunc(changes, func(c gitrepo.Change) bool { return !c.Mode.IsFile() })
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.Blob
	}
	var found []Finding
	err = repo.Read(ctx, names, whole, func(i int, size int64, content []byte) error {
		l := &look{s: s, name: changes[i].Path, left: newBudget()}
		if content == nil {
			l.problem(fmt.Errorf("is larger than %d MiB: %d bytes", whole>>20, size))
			return nil
		}
		for _, f := range l.content(ctx, content) {
			if f.last == 0 || f.Path != changes[i].Path || overlaps(changes[i].Added, f.Line, f.last) {
				found = append(found, f)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("scan the staged files: %w", err)
	}
	return found, nil
}

func overlaps(lines []gitrepo.Lines, from, to int) bool {
	return slices.ContainsFunc(lines, func(l gitrepo.Lines) bool { return l.From <= to && from <= l.To })
}

// History looks at every file that was ever committed, on any branch or tag,
// each content once, and at the commits' messages.
func (s *Scanner) History(ctx context.Context, repo *gitrepo.Repo) ([]Finding, error) {
	blobs, err := repo.Blobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("scan the history: %w", err)
	}
	names := make([]string, len(blobs))
	for i, b := range blobs {
		names[i] = b.Name
	}
	var found []Finding
	from := map[int]int{} // finding → blob
	err = repo.Read(ctx, names, whole, func(i int, size int64, content []byte) error {
		l := &look{s: s, name: blobs[i].Path, left: newBudget()}
		if content == nil {
			l.problem(fmt.Errorf("is larger than %d MiB: %d bytes", whole>>20, size))
			return nil
		}
		for _, f := range l.content(ctx, content) {
			from[len(found)] = i
			found = append(found, f)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("scan the history: %w", err)
	}
	commits := map[int]string{}
	for n := range found {
		i := from[n]
		if _, ok := commits[i]; !ok {
			if commits[i], err = repo.FirstCommit(ctx, blobs[i].Name); err != nil {
				return nil, fmt.Errorf("scan the history: %w", err)
			}
		}
		found[n].Commit = commits[i]
	}
	messages, err := repo.Messages(ctx)
	if err != nil {
		return nil, fmt.Errorf("scan the history: %w", err)
	}
	for _, m := range messages {
		l := &look{s: s, name: "(commit message)", left: newBudget(), commit: m.Commit}
		found = append(found, l.text(m.Text)...)
	}
	return found, nil
}
