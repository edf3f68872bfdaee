package jupyter

// modelNames are the members of a model of the contents API.
var modelNames = []string{
	"name", "path", "type", "writable", "created", "last_modified", "mimetype", "content", "format", "size",
	"hash", "hash_algorithm", "chunk", "copy_from", "ext",
}

// A Model is what the contents API says of a file, notebook or directory.
type Model struct {
	raw     []byte
	Members []Member
	Type    string // "file", "notebook", "directory" or ""
	Format  string // "text", "base64", "json" or ""
	Path    string
	Content []byte // a JSON value; nil when there is none or it is null
}

// ParseModel reads a model.
func ParseModel(raw []byte) (Model, error) {
	members, err := Members(raw)
	if err != nil {
		return Model{}, err
	}
	if err := Known(members, modelNames...); err != nil {
		return Model{}, err
	}
	m := Model{raw: raw, Members: members}
	m.Type, _ = String(Get(members, "type"))
	m.Format, _ = String(Get(members, "format"))
	m.Path, _ = String(Get(members, "path"))
	if c := Get(members, "content"); c != nil && string(c) != "null" {
		m.Content = c
	}
	return m, nil
}

// Append appends the model to dst. Its content is what content appends, given
// the value; every other text is what visit makes of it.
func (m Model) Append(dst []byte, visit Visit, content func(dst, raw []byte) ([]byte, error)) ([]byte, error) {
	return object(dst, m.raw, false, visit, Place{}, func(dst []byte, member Member) ([]byte, error) {
		if member.Name == "content" && m.Content != nil {
			return content(dst, member.Value)
		}
		return copyAs(dst, member.Value, Place{}, visit)
	})
}

var (
	notebookNames = []string{"cells", "metadata", "nbformat", "nbformat_minor", "worksheets"}
	cellNames     = []string{"cell_type", "id", "metadata", "source", "input", "outputs", "execution_count", "attachments"}
	outputNames   = []string{"output_type", "name", "text", "data", "metadata", "ename", "evalue", "traceback", "execution_count"}
)

// RewriteNotebook appends a notebook (nbformat 4, or 3 with its worksheets) to
// dst, every text in it being what visit makes of it. Places within outputs
// have Output set; sources are Code.
func RewriteNotebook(dst, raw []byte, visit Visit) ([]byte, error) {
	members, err := Members(raw)
	if err != nil {
		return nil, err
	}
	if err := Known(members, notebookNames...); err != nil {
		return nil, err
	}
	if Get(members, "nbformat") == nil {
		return nil, malformed("a notebook without nbformat")
	}
	return object(dst, raw, false, visit, Place{}, func(dst []byte, m Member) ([]byte, error) {
		switch m.Name {
		case "cells":
			return each(dst, m.Value, visit, func(dst, raw []byte) ([]byte, error) { return cell(dst, raw, visit) })
		case "worksheets":
			return each(dst, m.Value, visit, func(dst, raw []byte) ([]byte, error) { return worksheet(dst, raw, visit) })
		}
		return copyAs(dst, m.Value, Place{}, visit)
	})
}

// IsNotebook reports whether raw is an object that says which nbformat it is.
func IsNotebook(raw []byte) bool {
	members, err := Members(raw)
	return err == nil && Get(members, "nbformat") != nil
}

// each rewrites the elements of an array that are objects.
func each(dst, raw []byte, visit Visit, element func(dst, raw []byte) ([]byte, error)) ([]byte, error) {
	if len(raw) == 0 || raw[0] != '[' {
		return copyAs(dst, raw, Place{}, visit)
	}
	list, err := Elements(raw)
	if err != nil {
		return nil, err
	}
	dst = append(dst, '[')
	for i, e := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if e[0] == '{' {
			dst, err = element(dst, e)
		} else {
			dst, err = copyAs(dst, e, Place{}, visit)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func worksheet(dst, raw []byte, visit Visit) ([]byte, error) {
	return object(dst, raw, false, visit, Place{}, func(dst []byte, m Member) ([]byte, error) {
		if m.Name == "cells" {
			return each(dst, m.Value, visit, func(dst, raw []byte) ([]byte, error) { return cell(dst, raw, visit) })
		}
		return copyAs(dst, m.Value, Place{}, visit)
	})
}

func cell(dst, raw []byte, visit Visit) ([]byte, error) {
	members, err := Members(raw)
	if err != nil {
		return nil, err
	}
	if err := Known(members, cellNames...); err != nil {
		return nil, err
	}
	return object(dst, raw, false, visit, Place{}, func(dst []byte, m Member) ([]byte, error) {
		switch m.Name {
		case "source", "input":
			return joined(dst, m.Value, "", Place{Kind: Code}, visit)
		case "outputs":
			return each(dst, m.Value, visit, func(dst, raw []byte) ([]byte, error) { return output(dst, raw, visit) })
		}
		return copyAs(dst, m.Value, Place{}, visit)
	})
}

func output(dst, raw []byte, visit Visit) ([]byte, error) {
	members, err := Members(raw)
	if err != nil {
		return nil, err
	}
	if err := Known(members, outputNames...); err != nil {
		return nil, err
	}
	out := Place{Output: true}
	return object(dst, raw, false, visit, out, func(dst []byte, m Member) ([]byte, error) {
		switch m.Name {
		case "traceback":
			return joined(dst, m.Value, "\n", Place{Kind: Traceback, Output: true}, visit)
		case "data":
			return bundle(dst, m.Value, out, visit)
		}
		return joined(dst, m.Value, "", out, visit)
	})
}
