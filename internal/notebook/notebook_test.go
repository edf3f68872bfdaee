package notebook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/notebook"
)

// ran is a notebook as Jupyter 4 writes it after a run.
const ran = `{
 "cells": [
  {
   "cell_type": "markdown",
   "id": "a1",
   "metadata": {},
   "source": [
    "# Título\n",
    "Größe: \u00e9"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": 7,
   "id": "a2",
   "metadata": {
    "ExecuteTime": {
     "end_time": "2026-01-01"
    },
    "scrolled": true,
    "tags": [
     "train"
    ]
   },
   "outputs": [
    {
     "name": "stdout",
     "output_type": "stream",
     "text": [
      "line one\n",
      "line two\n"
     ]
    },
    {
     "data": {
      "image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==\n",
      "text/plain": [
       "<Figure>"
      ]
     },
     "execution_count": 7,
     "metadata": {},
     "output_type": "execute_result"
    }
   ],
   "source": [
    "lr = 1e-05\n",
    "print(lr)"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": 8,
   "id": "a3",
   "metadata": {
    "collapsed": true
   },
   "outputs": [],
   "source": "x"
  }
 ],
 "metadata": {
  "kernelspec": {
   "name": "python3"
  },
  "widgets": {
   "application/vnd.jupyter.widget-state+json": {}
  }
 },
 "nbformat": 4,
 "nbformat_minor": 5
}
`

const stripped = `{
 "cells": [
  {
   "cell_type": "markdown",
   "id": "a1",
   "metadata": {},
   "source": [
    "# Título\n",
    "Größe: \u00e9"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "a2",
   "metadata": {
    "tags": [
     "train"
    ]
   },
   "outputs": [],
   "source": [
    "lr = 1e-05\n",
    "print(lr)"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "a3",
   "metadata": {},
   "outputs": [],
   "source": "x"
  }
 ],
 "metadata": {
  "kernelspec": {
   "name": "python3"
  }
 },
 "nbformat": 4,
 "nbformat_minor": 5
}
`

func TestStripLeavesTheOtherBytesAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		in, want string
		keep     notebook.Keep
	}{
		"everything":       {in: ran, want: stripped},
		"already stripped": {in: stripped, want: stripped},
		"windows":          {in: strings.ReplaceAll(ran, "\n", "\r\n"), want: strings.ReplaceAll(stripped, "\n", "\r\n")},
		"no line end":      {in: strings.TrimSuffix(ran, "\n"), want: strings.TrimSuffix(stripped, "\n")},
		"one line": {
			in:   `{"nbformat":4,"cells":[{"outputs":[{"x":1}],"cell_type":"code","execution_count":3,"metadata":{"a":1,"scrolled":true,"b":2}}]}`,
			want: `{"nbformat":4,"cells":[{"outputs":[],"cell_type":"code","execution_count":null,"metadata":{"a":1,"b":2}}]}`,
		},
		"first and last keys": {
			in:   `{"nbformat":4,"cells":[{"metadata":{"scrolled":1,"collapsed":2,"b":2,"hidden":1}}]}`,
			want: `{"nbformat":4,"cells":[{"metadata":{"b":2}}]}`,
		},
		"format 3": {
			in:   `{"nbformat":3,"worksheets":[{"cells":[{"cell_type":"code","prompt_number":4,"outputs":[{"text":"x"}],"input":"1"}]}]}`,
			want: `{"nbformat":3,"worksheets":[{"cells":[{"cell_type":"code","prompt_number":null,"outputs":[],"input":"1"}]}]}`,
		},
		"keep outputs": {
			in:   `{"nbformat":4,"cells":[{"outputs":[{"execution_count":1,"x":1}],"execution_count":3}],"metadata":{"widgets":{}}}`,
			want: `{"nbformat":4,"cells":[{"outputs":[{"execution_count":null,"x":1}],"execution_count":null}],"metadata":{"widgets":{}}}`,
			keep: notebook.Keep{Outputs: true},
		},
		"keep counts and metadata": {
			in:   `{"nbformat":4,"cells":[{"outputs":[{"x":1}],"execution_count":3,"metadata":{"scrolled":1}}],"metadata":{"widgets":{},"signature":1}}`,
			want: `{"nbformat":4,"cells":[{"outputs":[],"execution_count":3,"metadata":{"scrolled":1}}],"metadata":{"signature":1}}`,
			keep: notebook.Keep{Counts: true, Metadata: true},
		},
		"the author's tag": {
			in:   `{"nbformat":4,"cells":[{"outputs":[{"x":1}],"metadata":{"tags":["keep_output"]}},{"outputs":[{"x":1}],"metadata":{"keep_output":true}},{"outputs":[{"x":1}],"metadata":{"keep_output":false}}]}`,
			want: `{"nbformat":4,"cells":[{"outputs":[{"x":1}],"metadata":{"tags":["keep_output"]}},{"outputs":[{"x":1}],"metadata":{"keep_output":true}},{"outputs":[],"metadata":{"keep_output":false}}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := notebook.Strip([]byte(tt.in), tt.keep)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Errorf("Strip (-want +got):\n%s", d)
			}
		})
	}
}

func TestWhatIsNoNotebookIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"no JSON":       "{\n\"nbformat\": 4,\n",
		"array":         "[]",
		"no format":     `{"cells": []}`,
		"key twice":     `{"nbformat":4,"cells":[],"cells":[{"outputs":[1]}]}`,
		"escaped twice": `{"nbformat":4,"cells":[{"outputs":[],"\u006futputs":[1]}]}`,
		"deep":          `{"nbformat":4,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		"two values":    `{"nbformat":4} {}`,
		"cell":          `{"nbformat":4,"cells":[1]}`,
	} {
		if _, err := notebook.Strip([]byte(text), notebook.Keep{}); !errors.Is(err, notebook.ErrFormat) {
			t.Errorf("%s: Strip = %v, want ErrFormat", name, err)
		}
	}
}

func TestPartsAreTheTextsOfTheFile(t *testing.T) {
	parts, err := notebook.Parts([]byte(ran))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range parts {
		got = append(got, fmt.Sprintf("%d %s %s %.30q", p.Cell, p.Name, p.Type, strings.Join(strings.Fields(string(p.Text)), " ")))
	}
	want := []string{
		`1 source  "# Título Größe: é"`,
		`2 metadata  "{ \"ExecuteTime\": { \"end_time\":"`,
		`2 output stdout "line one line two"`,
		`2 output text/plain "<Figure>"`,
		`2 source  "lr = 1e-05 print(lr)"`,
		`3 metadata  "{ \"collapsed\": true }"`,
		`3 source  "x"`,
		`0 metadata  "{ \"kernelspec\": { \"name\": \"pyt"`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Parts (-want +got):\n%s", d)
	}
	stdout := parts[2]
	at := stdout.Offset(bytes.Index(stdout.Text, []byte("two")))
	if line := 1 + strings.Count(ran[:at], "\n"); line != 31 {
		t.Errorf("the second line of the output is on line %d of the file, want 31", line)
	}
}

// Text that calls itself a picture is text.
func TestTextDoesNotHideAsAPicture(t *testing.T) {
	nb := `{"nbformat":4,"cells":[{"outputs":[{"data":{"image/png":"just some text here, no picture"}},{"data":{"image/png":"c2VjcmV0IHRleHQgaW4gYmFzZTY0"}}]}]}`
	parts, err := notebook.Parts([]byte(nb))
	if err != nil || len(parts) != 2 {
		t.Errorf("Parts = %d parts, %v; want both texts", len(parts), err)
	}
}

// FuzzStrip: it never panics, what it returns is a notebook, stripping twice is
// stripping once, and nothing but the transient goes.
func FuzzStrip(f *testing.F) {
	for _, seed := range []string{ran, stripped, `{"nbformat":4}`, `{"nbformat":3,"worksheets":[{"cells":[{}]}]}`, `{"nbformat":4,"cells":[{"metadata":{"scrolled":1,"a":2}}]}`, `{"nbformat":4,"cells":{"a":1},"metadata":[]}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, perr := notebook.Parts(data)
		once, err := notebook.Strip(data, notebook.Keep{})
		if err != nil {
			return
		}
		if perr != nil {
			t.Fatalf("Strip accepts what Parts refuses: %v", perr)
		}
		if !json.Valid(once) {
			t.Fatalf("Strip(%q) = %q, which is no JSON", data, once)
		}
		twice, err := notebook.Strip(once, notebook.Keep{})
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("Strip twice = %q, %v; want %q", twice, err, once)
		}
		all, err := notebook.Strip(data, notebook.Keep{Outputs: true, Counts: true, Metadata: true})
		if err != nil || !bytes.Equal(all, data) {
			t.Errorf("Strip that keeps everything = %q, %v; want %q", all, err, data)
		}
	})
}
