package console

// Routes lists the patterns of the console's own pages, as New registers them.
func (c *Console) Routes() []string {
	var out []string
	for _, r := range c.routes() {
		out = append(out, r.pattern)
	}
	return out
}

// MaxForm is how large a form may be.
const MaxForm = maxForm

// StageWords says a stage in words, Sentence makes a sentence.
func StageWords(name string) string { return stageWords(name) }

func Sentence(s string) string { return sentence(s) }
