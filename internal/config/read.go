package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of one file. The YAML library is quadratic in lines and in entries of
// one map and recurses once per level, so these keep a bad file to seconds and
// a few hundred MB; a file of 5,000 users with quotas of their own still fits.
const (
	maxBytes  = 1 << 20
	maxLines  = 10_000
	maxTokens = 100_000
	maxDepth  = 8 // of [ and {

	maxExcerpts = 4 * maxProblems // after so many nobody reads on
	maxLine     = 8 << 10         // a longer line is not worth an excerpt
)

// A look is what one look at the file has shown.
type look struct {
	missing bool
	data    []byte
	sum     [sha256.Size]byte // of data, of the absence, or of the problem
	err     *Problem          // why it cannot be read; nil: it can
}

// lookAt reads the file at path as it is now.
func lookAt(path string) look {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return look{missing: true, sum: sha256.Sum256([]byte("missing"))}
	}
	if p := (*Problem)(nil); errors.As(err, &p) {
		return look{err: p, sum: sha256.Sum256([]byte("problem: " + p.What))}
	}
	if err != nil {
		return look{
			err: &Problem{
				Where: path, What: "the file cannot be read: " + err.Error(),
				Why: "without it nobody knows what the administrator wants", Fix: "make it readable for the user that bailey runs as",
			},
			sum: sha256.Sum256([]byte("error: " + err.Error())),
		}
	}
	// The prefix keeps "the content is X" apart from the states above.
	return look{data: data, sum: sha256.Sum256(append([]byte("content: "), data...))}
}

// Error makes a Problem fit to be returned by readFile.
func (p *Problem) Error() string { return p.String() }

// readFile reads at most maxBytes of a regular file that not everybody may
// change: whoever can write the configuration decides what runs as root.
func readFile(path string) (data []byte, err error) {
	// O_NONBLOCK: a named pipe must not hold the server up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err //nolint:wrapcheck // lookAt gives it its words
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Problem{
			Where: path, What: "this is not a file", Why: "the configuration is one YAML file, not a directory, device or pipe",
			Fix: "name the file itself, such as " + DefaultPath,
		}
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, &Problem{
			Where: path, What: "everybody on this machine may change the file",
			Why: "whoever changes it decides what the server runs", Fix: "chmod o-w " + path,
		}
	}
	data, err = io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	if len(data) > maxBytes {
		return nil, &Problem{
			Where: path, What: "the file is larger than 1 MiB",
			Why: "a configuration is a few pages; this is probably another file", Fix: "check the name; put rules for many people into quotas.groups",
		}
	}
	return data, nil
}

// A document is the text of the file, cut into lines for excerpts.
type document struct {
	name  string
	text  string
	lines []string

	excerpts int // how many were made
}

func newDocument(name string, data []byte) *document {
	text := strings.TrimPrefix(string(data), "\ufeff") // some editors write a byte order mark
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return &document{name: name, text: text, lines: strings.Split(text, "\n")}
}

// problem returns a problem at a place in the document.
func (d *document) problem(line, column, width int, what, why, fix string) Problem {
	p := Problem{Where: d.name, Line: line, Column: column, What: what, Why: why, Fix: fix}
	if line >= 1 && line <= len(d.lines) && len(d.lines[line-1]) <= maxLine && d.excerpts < maxExcerpts {
		d.excerpts++
		p.Excerpt = excerpt(fmt.Sprintf("%4d", line), d.lines[line-1], column, width)
	}
	return p
}

// parse returns the root of the document, nil when it is empty, or why it
// cannot be read as one YAML document of the kind we take.
func (d *document) parse() (root ast.Node, problems []Problem) {
	if problems = d.checkText(); len(problems) > 0 {
		return nil, problems
	}
	defer func() {
		// The parser is foreign and the text is anybody's: what makes it panic is
		// an unreadable file, not the end of the server.
		if r := recover(); r != nil {
			root, problems = nil, []Problem{d.problem(1, 1, 1, "the file cannot be read as YAML",
				"the YAML reader gave up on it", "compare it with the example: bailey config show")}
		}
	}()
	tokens := lexer.Tokenize(d.text)
	if problems = d.checkTokens(tokens); len(problems) > 0 {
		return nil, problems
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, []Problem{d.syntax(err)}
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			at := place(doc.Body)
			return nil, []Problem{d.problem(at.Line, at.Column, 1, "a second document begins here",
				"the configuration is one YAML document", "one document; remove the \"---\" line above, or the rest")}
		}
		root = doc.Body
	}
	return root, nil
}

// checkText finds what is wrong before YAML begins.
func (d *document) checkText() []Problem {
	if len(d.lines) > maxLines {
		return []Problem{d.problem(maxLines+1, 1, 1, fmt.Sprintf("the file has more than %d lines", maxLines),
			"a configuration is a few pages; this is probably another file", "check the name; put rules for many people into quotas.groups")}
	}
	var problems []Problem
	for i, line := range d.lines {
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		if indent == len(line) {
			indent = 0
		}
		for column, r := range []rune(line) {
			what, why := "", "the configuration is plain text in UTF-8"
			switch {
			case r == 0:
				what = "there is a NUL byte here"
			case r == utf8.RuneError:
				what = "this is not UTF-8"
			case r < ' ' && r != '\t', r == 0x7f:
				what = fmt.Sprintf("there is a control character here (%U)", r)
			case r == '\t' && column < indent:
				what, why = "there is a tab in the indentation", "YAML does not allow tabs there, because nobody agrees on their width"
			default:
				continue
			}
			fix := "save it as UTF-8 text, without this character"
			if r == '\t' {
				fix = "two spaces for each level"
			}
			problems = append(problems, d.problem(i+1, column+1, 1, what, why, fix))
			break // one per line is enough
		}
		if len(problems) >= maxProblems {
			break
		}
	}
	return problems
}

// checkTokens refuses the parts of YAML that we have no use for, which are also
// those that bombs are made of, before anything recurses into them.
func (d *document) checkTokens(tokens token.Tokens) []Problem {
	if len(tokens) > maxTokens {
		at := tokens[maxTokens].Position
		return []Problem{d.problem(at.Line, at.Column, 1, fmt.Sprintf("the file has more than %d words", maxTokens),
			"a configuration is a few pages; this is probably another file", "check the name; put rules for many people into quotas.groups")}
	}
	var problems []Problem
	depth := 0
	anchors := false
	add := func(t *token.Token, what, why, fix string) {
		problems = append(problems, d.problem(t.Position.Line, t.Position.Column, 1, what, why, fix))
	}
	for i, t := range tokens {
		switch t.Type { //nolint:exhaustive // everything else the parser judges
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			if anchors {
				continue // once is enough: where there is one, there are many
			}
			anchors = true
			add(t, "anchors, aliases and merge keys (&, *, <<) are not used here",
				"a few lines of them can grow into gigabytes, and errors would point at the wrong line", "the value itself, written out; text that begins with & or * goes into quotes")
		case token.TagType:
			add(t, "tags (!) are not used here", "every field knows its own type", "the value without the tag; text that begins with ! goes into quotes")
		case token.MappingKeyType:
			add(t, "\"?\" keys are not used here", "every key is a plain word", "key: value")
		case token.DirectiveType:
			add(t, "directives (%) are not used here", "the file is plain YAML 1.2", "the file without this line")
		case token.SequenceEntryType:
			if i > 0 && tokens[i-1].Type == token.SequenceEntryType && tokens[i-1].Position.Line == t.Position.Line {
				add(t, "this is a list in a list", "no field takes one", "one \"-\" per entry")
			}
		case token.MappingStartType, token.SequenceStartType:
			if depth++; depth == maxDepth+1 {
				add(t, fmt.Sprintf("brackets are nested more than %d deep", maxDepth), "no field is that deep", "fewer brackets")
			}
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if len(problems) > 0 && depth > maxDepth || len(problems) >= maxProblems {
			break
		}
	}
	return problems
}

// syntax turns the parser's error into ours.
func (d *document) syntax(err error) Problem {
	line, column, what := 1, 1, "the file is not YAML"
	if e, ok := errors.AsType[yaml.Error](err); ok {
		what = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			line, column = t.Position.Line, t.Position.Column
		}
	}
	return d.problem(line, column, 1, what,
		"the file cannot be read as YAML from here on, so the rest is not checked",
		"mend this place first; often a quote, a bracket or a space after \":\" is missing just above")
}
