package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/exact"
	wire "github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// gitleaks is the peer of the filter's rules: the same catalogue, and more, runs
// in ours.
const gitleaks = "github.com/zricethezav/gitleaks/v8@v8.30.1"

// A corpus is benign text of one kind.
type corpus struct {
	id, name string
	text     []byte
}

// filterBench measures how fast text is looked at, in CPU time of one core, in turns
// with gitleaks and with copying the text.
func filterBench(ctx context.Context, b *bench) (r result, err error) {
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		return r, err
	}
	corpora, err := b.corpora()
	if err != nil {
		return r, err
	}
	peer, why := b.buildGitleaks(ctx)
	r.Said = append(r.Said, why)
	rounds := pick(b, 5, 1)
	for _, c := range corpora {
		var ours, theirs, copied measure.Samples
		if err := passStream(set, nil, c.text[:min(len(c.text), 1<<20)], 64<<10, inspect.Batch); err != nil { // what is built on first use is built
			return r, err
		}
		for range rounds {
			took, err := cpuTime(func() error { return passStream(set, nil, c.text, 64<<10, inspect.Batch) })
			if err != nil {
				return r, err
			}
			ours = append(ours, float64(len(c.text))/took.Seconds())
			copied = append(copied, memcpy(c.text))
		}
		if peer != "" { // minutes are not worth a second round
			rate, err := gitleaksRate(ctx, peer, b.work, c)
			if err != nil {
				return r, err
			}
			theirs = append(theirs, rate)
		}
		row := measure.Row{
			ID: "filter." + c.id, Path: fmt.Sprintf("filter, all %d rules, %s (%s): text per core", len(set.Rules()), c.name, measure.Bytes.Format(float64(len(c.text)))),
			Unit: measure.BytesPerSecond, Ours: ours.Median(),
		}
		if len(theirs) > 0 {
			row.Peer = new(theirs.Median())
		}
		if c.id == "log" {
			row.Budget = measure.Budget{Kind: measure.AtLeast, Limit: 400e6}
		}
		r.Rows = append(r.Rows, row, measure.Row{
			ID: "filter." + c.id + ".memcpy", Path: "the same, with copying the text as the peer", Unit: measure.BytesPerSecond, Ours: ours.Median(), Peer: new(copied.Median()),
		})
		b.say("%s: %s, copying %s", c.name, measure.BytesPerSecond.Format(ours.Median()), measure.BytesPerSecond.Format(copied.Median()))
	}
	replayed, err := replay(set, corpora[0].text, rounds)
	if err != nil {
		return r, err
	}
	r.Rows = append(r.Rows, replayed)
	known, err := b.knownSecrets(corpora[0].text, rounds)
	if err != nil {
		return r, err
	}
	waits, err := b.filterWaits(set, corpora)
	if err != nil {
		return r, err
	}
	through, err := b.filterThrough(ctx, corpora)
	if err != nil {
		return r, err
	}
	r.Rows = append(append(append(r.Rows, known...), waits...), through...)
	r.Said = append(r.Said,
		fmt.Sprintf("internal/inspect in this process, through a Stream in pieces of 64 KiB; CPU time of the process, garbage collection included; the median of %d rounds.", rounds),
		"Log text is made, with ids, numbers and times; source code is Go's own; notebooks are that code with outputs, float dumps and images. gitleaks reads the same bytes as files, one run, its CPU time.",
		"Known secrets are random, 32 letters and digits; each is looked for in about twenty encodings and however it is spaced.",
		"Through the gateway: bailey without containers, a terminal that prints what is typed, eight at a time; each piece is timed from the moment that it should have been sent. Eight kernels print at 50 messages a second each; a message is looked at going in and coming back. The peer is the same server with the filter off.",
		"Keystrokes and messages are timed in process, one after the other, through a Stream with 1,000 known secrets and all rules.")
	return r, nil
}

// replay measures a Jupyter kernel's messages through the filter, frames taken
// apart and put together: what 40 cells print, in messages of 1 KiB.
func replay(set *inspect.Set, text []byte, rounds int) (measure.Row, error) {
	f, err := filter.New(filter.Config{Rules: set, Report: func(filter.Finding) {}})
	if err != nil {
		return measure.Row{}, err
	}
	var messages []filter.Message
	size, each := 0, len(text)/40
	for cell := range 40 {
		part := text[cell*each : (cell+1)*each]
		for i := 0; len(part) > 0; i++ {
			n := min(1<<10, len(part))
			content, err := json.Marshal(map[string]string{"name": "stdout", "text": string(part[:n])})
			if err != nil {
				return measure.Row{}, err
			}
			part = part[n:]
			data := wire.AppendV1(nil, wire.Message{
				Channel: "iopub", Metadata: []byte("{}"), Content: content,
				Header: fmt.Appendf(nil, `{"msg_id":"%d-%d","msg_type":"stream","session":"s","username":"u","date":"2026-11-21T02:41:17Z","version":"5.3"}`, cell, i),
				Parent: fmt.Appendf(nil, `{"msg_id":"cell-%d","msg_type":"execute_request","session":"s","username":"u","date":"2026-11-21T02:41:17Z","version":"5.3"}`, cell),
			})
			messages = append(messages, filter.Message{Data: data})
			size += len(data)
		}
	}
	var rate measure.Samples
	for round := range rounds + 1 {
		conn := f.For(filter.Subject{UserID: "u", User: "u", WorkspaceID: "w", Workspace: "w"}, nil).Conn(filter.Kernel, fmt.Sprint(round), true)
		took, err := cpuTime(func() error {
			for _, m := range messages {
				if v := conn.Down(m); v.Close != "" || v.Stop {
					return fmt.Errorf("a message of the replay was refused: %s", v.Close)
				}
			}
			return nil
		})
		conn.End()
		if err != nil {
			return measure.Row{}, err
		}
		if round > 0 { // what is built on first use is built
			rate = append(rate, float64(size)/took.Seconds())
		}
	}
	return measure.Row{
		ID: "filter.replay", Path: fmt.Sprintf("filter, all rules, a Jupyter replay of %d messages, frames included: per core", len(messages)),
		Unit: measure.BytesPerSecond, Ours: rate.Median(), Peer: new(memcpy(text)),
	}, nil
}

// cpuTime returns the CPU time of this process that do took.
func cpuTime(do func() error) (time.Duration, error) {
	runtime.GC()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return 0, err
	}
	err := do()
	if err := errors.Join(err, unix.Getrusage(unix.RUSAGE_SELF, &after)); err != nil {
		return 0, err
	}
	cpu := func(u unix.Rusage) time.Duration {
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return cpu(after) - cpu(before), nil
}

// passStream sends text through a Stream, in pieces.
func passStream(set *inspect.Set, known *exact.Set, text []byte, piece int, kind inspect.Kind) error {
	s := inspect.NewStream(inspect.StreamConfig{Set: set, ScanConfig: inspect.ScanConfig{Exact: known, Kind: kind}})
	var out []byte
	var err error
	for len(text) > 0 {
		n := min(piece, len(text))
		if out, err = s.Write(out[:0], text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	_, err = s.Close(out[:0])
	return err
}

// memcpy returns how many bytes a second are copied.
func memcpy(text []byte) float64 {
	dst := make([]byte, 64<<10)
	begin := time.Now()
	n := 0
	for time.Since(begin) < 50*time.Millisecond {
		for rest := text; len(rest) > 0; rest = rest[min(len(dst), len(rest)):] {
			n += copy(dst, rest)
		}
	}
	return float64(n) / time.Since(begin).Seconds()
}

// buildGitleaks builds the peer in a module of its own. Without it the rows have
// no peer, and the sentence says why.
func (b *bench) buildGitleaks(ctx context.Context) (bin, said string) {
	dir := filepath.Join(b.work, "gitleaks")
	bin = filepath.Join(dir, "gitleaks")
	module, _, _ := strings.Cut(gitleaks, "@")
	script := "go mod init peer && go get " + gitleaks + " && go build -trimpath -o gitleaks " + module
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		_, err = run1(ctx, "sh", "-c", "cd '"+dir+"' && { "+script+"; } >/dev/null 2>log || { tail -3 log >&2; exit 1; }")
	}
	if err != nil {
		b.say("gitleaks cannot be built: %v", err)
		return "", "The peer, " + gitleaks + ", could not be built: its dependencies are not served here."
	}
	return bin, "The peer is " + gitleaks + ", built from its Go module."
}

// gitleaksRate returns how many bytes a second of CPU time gitleaks looks at.
func gitleaksRate(ctx context.Context, bin, work string, c corpus) (float64, error) {
	dir := filepath.Join(work, "corpus-"+c.id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	const most = 8 << 20 // enough: it takes seconds
	text := c.text[:min(len(c.text), most)]
	const file = 1 << 20
	for i := 0; i*file < len(text); i++ {
		name := filepath.Join(dir, fmt.Sprintf("%s-%d.txt", c.id, i))
		if err := os.WriteFile(name, text[i*file:min((i+1)*file, len(text))], 0o644); err != nil {
			return 0, err
		}
	}
	var before, after unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_CHILDREN, &before)
	if err == nil {
		_, err = run1(ctx, bin, "dir", "--no-banner", "--log-level", "error", "--exit-code", "0", dir)
	}
	if err = errors.Join(err, unix.Getrusage(unix.RUSAGE_CHILDREN, &after)); err != nil {
		return 0, err
	}
	took := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	return float64(len(text)) / took.Seconds(), nil
}

// knownSecrets measures looking for known values alone.
func (b *bench) knownSecrets(text []byte, rounds int) ([]measure.Row, error) {
	var rows []measure.Row
	for _, n := range []int{10, 1_000, 10_000} {
		known, warnings := exact.New(tokens(n))
		if len(warnings) > 0 {
			return nil, fmt.Errorf("%d known secrets: %v", n, warnings[0])
		}
		var rate measure.Samples
		for range rounds {
			took, err := cpuTime(func() error {
				for i := 0; i < len(text); i += 64 << 10 {
					if m := known.Find(nil, text[i:min(i+64<<10, len(text))]); len(m) > 0 {
						return errors.New("a random secret was found in benign text")
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			rate = append(rate, float64(len(text))/took.Seconds())
		}
		rows = append(rows, measure.Row{
			ID: fmt.Sprintf("filter.exact.%d", n), Path: fmt.Sprintf("%d known secrets in every encoding, log text: text per core, with copying as the peer", n),
			Unit: measure.BytesPerSecond, Ours: rate.Median(), Peer: new(memcpy(text)),
		})
	}
	return rows, nil
}

// tokens returns n random known secrets.
func tokens(n int) []exact.Secret {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	all := make([]exact.Secret, n)
	for i := range all {
		value := make([]byte, 32)
		for j := range value {
			value[j] = letters[rng.IntN(len(letters))]
		}
		all[i] = exact.Secret{Name: fmt.Sprint(i), Value: secret.New(string(value))}
	}
	return all
}

// filterWaits measures what one keystroke and one message wait.
func (b *bench) filterWaits(set *inspect.Set, corpora []corpus) ([]measure.Row, error) {
	known, _ := exact.New(tokens(1_000))
	log, source := corpora[0].text, corpora[1].text
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	timed := func(text []byte, piece, n int, kind inspect.Kind) (took measure.Samples, held int, err error) {
		s := inspect.NewStream(inspect.StreamConfig{Set: set, ScanConfig: inspect.ScanConfig{Exact: known, Kind: kind}})
		var out []byte
		for i := range n {
			from := i * piece % (len(text) - piece)
			begin := time.Now()
			out, err = s.Write(out[:0], text[from:from+piece])
			took = append(took, time.Since(begin).Seconds())
			if err != nil {
				return nil, 0, err
			}
			if s.Held() > 0 {
				held++
				if out, err = s.Tick(out[:0]); err != nil {
					return nil, 0, err
				}
			}
		}
		return took, held, nil
	}
	keys, held, err := timed(source, 1, pick(b, 100_000, 2_000), inspect.Terminal)
	if err != nil {
		return nil, err
	}
	small, _, err := timed(log, 4<<10, pick(b, 10_000, 100), inspect.Batch)
	if err != nil {
		return nil, err
	}
	large, _, err := timed(log, 1<<20, pick(b, 50, 3), inspect.Batch)
	if err != nil {
		return nil, err
	}
	within := func(limit float64) measure.Budget { return measure.Budget{Kind: measure.AtMost, Limit: limit} }
	return []measure.Row{
		{ID: "filter.key.p50", Path: "one keystroke's echo in the filter, 1,000 known secrets, all rules: p50", Unit: measure.Seconds, Ours: keys.Median()},
		{ID: "filter.key.p99", Path: fmt.Sprintf("the same: p99 (n = %d)", len(keys)), Unit: measure.Seconds, Ours: keys.Quantile(.99), Budget: within(1e-3)},
		{ID: "filter.key.held", Path: "of 10,000 keystrokes, held back until the timer", Unit: measure.Count, Ours: float64(held) / float64(len(keys)) * 1e4},
		{ID: "filter.message.p50", Path: "one stream message of 4 KiB in the filter: p50", Unit: measure.Seconds, Ours: small.Median(), Budget: within(30e-6)},
		{ID: "filter.message.p99", Path: fmt.Sprintf("the same: p99 (n = %d)", len(small)), Unit: measure.Seconds, Ours: small.Quantile(.99)},
		{ID: "filter.large.p99", Path: fmt.Sprintf("one message of 1 MiB in the filter: p99 (n = %d)", len(large)), Unit: measure.Seconds, Ours: large.Quantile(.99)},
	}, nil
}

// filterThrough measures what people wait for through a whole bailey, the filter
// on and off.
func (b *bench) filterThrough(ctx context.Context, corpora []corpus) ([]measure.Row, error) {
	type side struct{ keys, messages, cells measure.Samples }
	sides := map[string]*side{}
	for _, mode := range []string{"off", "mask"} {
		b.extra = "filter:\n  mode: " + mode + "\n"
		keys, messages, cells, err := b.typed(ctx, "filter-"+mode, corpora)
		b.extra = ""
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", mode, err)
		}
		sides[mode] = &side{keys, messages, cells}
	}
	off, on := sides["off"], sides["mask"]
	row := func(id, path string, q float64, of func(*side) measure.Samples) measure.Row {
		return measure.Row{ID: "filter." + id, Path: path, Unit: measure.Seconds, Ours: of(on).Quantile(q), Peer: new(of(off).Quantile(q))}
	}
	keys, messages := func(s *side) measure.Samples { return s.keys }, func(s *side) measure.Samples { return s.messages }
	cells := func(s *side) measure.Samples { return s.cells }
	rows := []measure.Row{
		row("echo.p50", "keystroke and echo through the gateway, the filter on, against off: p50", .5, keys),
		row("echo.p99", fmt.Sprintf("the same: p99 (n = %d)", len(on.keys)), .99, keys),
		row("output.p50", "4 KiB into a terminal and out again through the gateway: p50", .5, messages),
		row("output.p99", fmt.Sprintf("the same: p99 (n = %d)", len(on.messages)), .99, messages),
		row("kernel.p50", "a kernel's message of 1 KiB into the gateway and out again, the filter on, against off: p50", .5, cells),
		row("kernel.p99", fmt.Sprintf("the same: p99 (n = %d)", len(on.cells)), .99, cells),
	}
	rows[1].Budget = measure.Budget{Kind: measure.Over, Limit: 1e-3}
	rows[5].Budget = measure.Budget{Kind: measure.Over, Limit: 0.5e-3}
	return rows, nil
}

// typed types into eight terminals of one workspace, and lets eight kernels print.
func (b *bench) typed(ctx context.Context, name string, corpora []corpus) (keys, messages, cells measure.Samples, err error) {
	socket := filepath.Join(b.work, name+".sock")
	backend, _, err := b.startBackend(ctx, socket)
	if err != nil {
		return nil, nil, nil, err
	}
	defer backend.stop()
	s, _, err := b.startWithout(ctx, name, socket)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	cfg, err := s.tls("http/1.1")
	if err != nil {
		return nil, nil, nil, err
	}
	w, _, err := s.admin.launch(ctx, "typing", "notebook")
	if err != nil {
		return nil, nil, nil, err
	}
	sockets, err := socketsOf(w, s.admin.token, cfg, 1)
	if err != nil {
		return nil, nil, nil, err
	}
	at := func(do func(i int) ([]time.Duration, error)) (all measure.Samples, err error) {
		const terminals = 8
		waits, errs := make([][]time.Duration, terminals), make([]error, terminals)
		var g sync.WaitGroup
		for i := range terminals {
			g.Go(func() { waits[i], errs[i] = do(i) })
		}
		g.Wait()
		for _, took := range waits {
			for _, d := range took {
				all = append(all, d.Seconds())
			}
		}
		return all, errors.Join(errs...)
	}
	many := func(text []byte, piece, n int, every time.Duration) (measure.Samples, error) {
		return at(func(i int) ([]time.Duration, error) {
			one := sockets
			one.URL += strconv.Itoa(i)
			return one.Type(ctx, string(text[i*n*piece:(i+1)*n*piece]), piece, every)
		})
	}
	if err := b.settle(ctx); err != nil {
		return nil, nil, nil, err
	}
	source := ascii(corpora[1].text)
	if keys, err = many(source, 1, pick(b, 500, 50), 20*time.Millisecond); err != nil {
		return nil, nil, nil, err
	}
	if messages, err = many(ascii(corpora[0].text), 4<<10, pick(b, 60, 5), 50*time.Millisecond); err != nil {
		return nil, nil, nil, err
	}
	n := pick(b, 250, 10)
	texts := lines(corpora[0].text, 1<<10, 8*n)
	cells, err = at(func(i int) ([]time.Duration, error) {
		one := sockets
		one.URL = strings.Replace(one.URL, "terminals/websocket/bench", fmt.Sprintf("api/kernels/%d/channels", i), 1)
		return one.Tell(ctx, texts[i*n:(i+1)*n], 20*time.Millisecond)
	})
	return keys, messages, cells, err
}

// lines cuts text into n pieces of about a size, each of whole lines: what may go
// on in the next message waits for it, and here nothing does.
func lines(text []byte, size, n int) []string {
	var pieces []string
	for len(pieces) < n {
		end := min(size, len(text))
		if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
			end += i + 1
		}
		pieces = append(pieces, string(text[:end]))
		text = text[end:]
	}
	return pieces
}

// ascii leaves out what is not one byte a character, and line ends: an echo is
// told by its length.
func ascii(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
}

// corpora returns the texts, the logs first and the sources second.
func (b *bench) corpora() ([]corpus, error) {
	size := pick(b, 16<<20, 3<<20)
	source, err := goSource(size)
	if err != nil {
		return nil, fmt.Errorf("read Go's own sources: %w", err)
	}
	notebooks, err := notebookText(source, size)
	if err != nil {
		return nil, err
	}
	return []corpus{{"log", "log text", logText(size)}, {"source", "source code", source}, {"notebooks", "notebooks", notebooks}}, nil
}

// logText makes the kind of text that services and training runs write.
func logText(size int) []byte {
	rng := rand.New(rand.NewPCG(7, 7))
	words := strings.Fields("request handled worker started stopped loading model weights epoch step loss accuracy checkpoint saved connection closed " +
		"retry timeout cache miss hit queue drained shard batch tokens gradient validation finished with in for to from after before the a of")
	var out bytes.Buffer
	begin := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	for i := 0; out.Len() < size; i++ {
		begin = begin.Add(time.Duration(rng.IntN(900)) * time.Millisecond)
		fmt.Fprintf(&out, "%s %s [worker-%d] ", begin.Format(time.RFC3339Nano), []string{"INFO", "DEBUG", "WARN"}[rng.IntN(3)], rng.IntN(32))
		for range 4 + rng.IntN(8) {
			out.WriteString(words[rng.IntN(len(words))])
			out.WriteByte(' ')
		}
		switch rng.IntN(4) {
		case 0:
			fmt.Fprintf(&out, "id=%08x path=/api/v%d/items/%d status=%d took=%.2fms", rng.Uint32(), 1+rng.IntN(3), rng.IntN(9999), 200+rng.IntN(4), rng.Float64()*90)
		case 1:
			fmt.Fprintf(&out, "step=%d/%d loss=%.6f lr=%.2e", i%5000, 5000, rng.Float64(), rng.Float64()/1000)
		case 2:
			fmt.Fprintf(&out, "commit %016x%016x%08x", rng.Uint64(), rng.Uint64(), rng.Uint32())
		}
		out.WriteByte('\n')
	}
	return out.Bytes()[:size]
}

// goSource reads the sources of Go's standard library.
func goSource(size int) ([]byte, error) {
	root, err := run1(context.Background(), "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	var out []byte
	err = filepath.WalkDir(filepath.Join(root, "src"), func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || e.Name() == "crypto"): // those hold keys to test with
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || len(out) >= size:
			return nil
		}
		text, err := os.ReadFile(path)
		out = append(out, text...)
		return err
	})
	if err == nil && len(out) < size/2 {
		err = fmt.Errorf("only %d bytes in %s", len(out), root)
	}
	return out[:min(len(out), size)], err
}

// notebookText makes notebooks of source: code, printed tables, float dumps and
// images.
func notebookText(source []byte, size int) ([]byte, error) {
	rng := rand.New(rand.NewPCG(8, 8))
	type output struct {
		Type string         `json:"output_type"`
		Name string         `json:"name,omitempty"`
		Text []string       `json:"text,omitempty"`
		Data map[string]any `json:"data,omitempty"`
	}
	type cell struct {
		Type    string         `json:"cell_type"`
		Meta    map[string]any `json:"metadata"`
		Source  []string       `json:"source"`
		Outputs []output       `json:"outputs"`
	}
	var out bytes.Buffer
	lines := bytes.SplitAfter(source, []byte("\n"))
	at := 0
	for out.Len() < size {
		var cells []cell
		for range 20 {
			c := cell{Type: "code", Meta: map[string]any{}}
			for range 10 + rng.IntN(30) {
				c.Source = append(c.Source, string(lines[at%len(lines)]))
				at++
			}
			printed := output{Type: "stream", Name: "stdout"}
			for range rng.IntN(20) {
				var row strings.Builder
				for range 8 {
					fmt.Fprintf(&row, "%11.8f ", rng.NormFloat64())
				}
				printed.Text = append(printed.Text, row.String()+"\n")
			}
			c.Outputs = append(c.Outputs, printed)
			if rng.IntN(5) == 0 {
				image := make([]byte, 20_000)
				for i := range image {
					image[i] = byte(rng.Uint32())
				}
				copy(image, "\x89PNG\r\n\x1a\n")
				c.Outputs = append(c.Outputs, output{Type: "display_data", Data: map[string]any{"image/png": base64.StdEncoding.EncodeToString(image)}})
			}
			cells = append(cells, c)
		}
		text, err := json.MarshalIndent(map[string]any{"cells": cells, "nbformat": 4, "nbformat_minor": 5}, "", " ")
		if err != nil {
			return nil, err
		}
		out.Write(text)
		out.WriteByte('\n')
	}
	return out.Bytes()[:size], nil
}
