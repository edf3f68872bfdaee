package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
)

// Limits of a condition. An expression that costs more is not true.
const (
	maxExpression = 4096    // characters
	maxCost       = 200_000 // in CEL's own units; a few milliseconds
)

// A Condition is a CEL expression over one attestation. It has no way to the
// network, the disk or the clock: what it may look at is handed to it.
type Condition struct {
	Text string
	prg  cel.Program
}

// Facts is what a condition sees.
type Facts struct {
	Predicate any            // the attestation's predicate, as JSON gives it
	Statement map[string]any // the whole statement
	Image     map[string]any // repository, digest
	Signer    map[string]any // authority, id, issuer, signed_at
	Now       time.Time
}

// ParseCondition compiles an expression that must answer true or false.
func ParseCondition(text string) (*Condition, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("the expression is longer than %d characters", maxExpression)
	}
	env, err := cel.NewEnv(
		cel.Variable("predicate", cel.DynType),
		cel.Variable("statement", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("image", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("signer", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("now", cel.TimestampType),
		cel.ParserRecursionLimit(64),
		ext.Strings(ext.StringsVersion(4)),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare the expression language: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("read the expression: %w", issues.Err())
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("the expression answers %s; true or false is needed", t)
	}
	prg, err := env.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("prepare the expression: %w", err)
	}
	return &Condition{Text: text, prg: prg}, nil
}

// Holds evaluates the condition. Everything but a plain true is false: an
// error, a missing field, an answer that is no truth value, a cost above the
// limit. The error says which.
func (c *Condition) Holds(ctx context.Context, f Facts) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	out, _, err := c.prg.ContextEval(ctx, map[string]any{
		"predicate": f.Predicate, "statement": f.Statement, "image": f.Image, "signer": f.Signer, "now": f.Now,
	})
	if err != nil {
		return false, fmt.Errorf("evaluate %q: %w", c.Text, err)
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, errors.New("the expression answered neither true nor false")
	}
	return yes, nil
}
