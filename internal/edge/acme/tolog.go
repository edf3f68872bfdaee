package acme

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap/zapcore" //nolint:depguard // certmagic logs with zap; this leads it to slog
)

// toSlog hands certmagic's messages to our log. Its Debug level is dropped: it
// writes protocol messages, and with them what proves that a name is ours.
type toSlog struct {
	log  *slog.Logger
	with []zapcore.Field
}

func (t toSlog) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

func (t toSlog) With(f []zapcore.Field) zapcore.Core {
	return toSlog{log: t.log, with: append(slices.Clip(t.with), f...)}
}

func (t toSlog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if t.Enabled(e.Level) {
		return c.AddCore(e, t)
	}
	return c
}

func (t toSlog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range append(slices.Clip(t.with), fields...) {
		f.AddTo(m)
	}
	attrs := []slog.Attr{slog.String("text", e.Message)}
	// These say which name, and why not; the rest repeats the protocol.
	for _, key := range []string{"identifier", "identifiers", "challenge_type", "error", "expiration", "remaining"} {
		if v, ok := m.Fields[key]; ok {
			attrs = append(attrs, slog.Any(key, v))
		}
	}
	level := slog.LevelDebug
	if e.Level >= zapcore.WarnLevel {
		level = slog.LevelWarn
	} else if e.Message == "certificate obtained successfully" {
		level = slog.LevelInfo
	}
	t.log.LogAttrs(context.Background(), level, "certificate authority", attrs...) //nolint:forbidigo // zap hands none down
	return nil
}

func (t toSlog) Sync() error { return nil }
