// Package terminal opens the terminals of people's sessions: their size, their
// modes as SSH encodes them, and who is in the foreground.
package terminal

import (
	"encoding/binary"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/wire"
)

// Open opens a terminal of the size and with the modes that a command asks
// for.
func Open(cmd wire.Command) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	var number int
	err = onFD(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		number = n
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	Resize(master, cmd.Cols, cmd.Rows)
	// A terminal without its modes is still a terminal.
	_ = onFD(slave, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		setModes(t, cmd.Modes)
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
	return master, slave, nil
}

// onFD runs do on a file's descriptor without making the file blocking.
func onFD(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Resize sets a terminal's size; 0 leaves what it has.
func Resize(master *os.File, cols, rows uint16) {
	if cols == 0 || rows == 0 {
		return
	}
	_ = onFD(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
}

// Foreground returns the group that keys in a terminal speak to; 0: unknown.
func Foreground(master *os.File) (group int) {
	_ = onFD(master, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return max(group, 0)
}

// setModes applies encoded terminal modes (RFC 4254, 8). Speeds and what is not
// known are left out.
func setModes(t *unix.Termios, modes []byte) {
	const end, firstUnknown = 0, 160
	for len(modes) >= 5 && modes[0] != end && modes[0] < firstUnknown {
		op, v := modes[0], binary.BigEndian.Uint32(modes[1:5])
		modes = modes[5:]
		if cc, ok := modeChars[op]; ok {
			t.Cc[cc] = byte(v) //nolint:gosec // a character
			if v == 255 {
				t.Cc[cc] = 0 // "none"
			}
			continue
		}
		if m, ok := modeFlags[op]; ok {
			flags := m.in(t)
			*flags &^= m.bits
			if v != 0 {
				*flags |= m.bits
			}
			continue
		}
		switch op {
		case 90: // CS7
			if v != 0 {
				t.Cflag = t.Cflag&^unix.CSIZE | unix.CS7
			}
		case 91: // CS8
			if v != 0 {
				t.Cflag = t.Cflag&^unix.CSIZE | unix.CS8
			}
		}
	}
}

var modeChars = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 18: unix.VDISCARD,
}

type modeFlag struct {
	in   func(*unix.Termios) *uint32
	bits uint32
}

func iflag(t *unix.Termios) *uint32 { return &t.Iflag }
func lflag(t *unix.Termios) *uint32 { return &t.Lflag }
func oflag(t *unix.Termios) *uint32 { return &t.Oflag }
func cflag(t *unix.Termios) *uint32 { return &t.Cflag }

var modeFlags = map[byte]modeFlag{
	30: {iflag, unix.IGNPAR}, 31: {iflag, unix.PARMRK}, 32: {iflag, unix.INPCK}, 33: {iflag, unix.ISTRIP},
	34: {iflag, unix.INLCR}, 35: {iflag, unix.IGNCR}, 36: {iflag, unix.ICRNL}, 37: {iflag, unix.IUCLC},
	38: {iflag, unix.IXON}, 39: {iflag, unix.IXANY}, 40: {iflag, unix.IXOFF}, 41: {iflag, unix.IMAXBEL}, 42: {iflag, unix.IUTF8},
	50: {lflag, unix.ISIG}, 51: {lflag, unix.ICANON}, 52: {lflag, unix.XCASE}, 53: {lflag, unix.ECHO},
	54: {lflag, unix.ECHOE}, 55: {lflag, unix.ECHOK}, 56: {lflag, unix.ECHONL}, 57: {lflag, unix.NOFLSH},
	58: {lflag, unix.TOSTOP}, 59: {lflag, unix.IEXTEN}, 60: {lflag, unix.ECHOCTL}, 61: {lflag, unix.ECHOKE}, 62: {lflag, unix.PENDIN},
	70: {oflag, unix.OPOST}, 71: {oflag, unix.OLCUC}, 72: {oflag, unix.ONLCR}, 73: {oflag, unix.OCRNL},
	74: {oflag, unix.ONOCR}, 75: {oflag, unix.ONLRET},
	92: {cflag, unix.PARENB}, 93: {cflag, unix.PARODD},
}
