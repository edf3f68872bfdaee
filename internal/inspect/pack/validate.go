package pack

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// validators are the checks that a rule may name.
var validators = map[string]func([]byte) bool{
	"luhn":         Luhn,
	"gb11643":      ResidentID,
	"gb11643-15":   residentID15,
	"uscc":         SocialCredit,
	"uscc-letters": func(b []byte) bool { return bytes.ContainsFunc(b, isUpper) && SocialCredit(b) },
	"iban":         IBAN,
	"card":         Card,
	"card-grouped": func(b []byte) bool { return bytes.ContainsAny(b, " -") && cardAnyLength(b) },
	"card-any":     cardAnyLength,
	"unionpay":     unionPay,
	"cn-mobile":    mobile,
	"jwt":          JWT,
	"base64-json":  base64JSON,
	"base64-pem":   base64PEM,
	"pem":          pemBody,
	"basic-auth":   basicAuth,
	"ipv4":         privateIPv4,
	"ipv6":         privateIPv6,
	"password":     strongPassword,
	"mixed":        mixed,
	"spread":       spread,
	"random":       random,
	"us-ssn":       ssn,
}

// Validator returns the check of that name. A check gets the secret as it
// stands in the text, separators included, and says whether it is one. It is
// pure, never panics, and may be used concurrently.
func Validator(name string) (func(secret []byte) bool, bool) {
	f, ok := validators[name]
	return f, ok
}

// Validators returns the names that [Validator] knows, sorted.
func Validators() []string {
	names := make([]string, 0, len(validators))
	for n := range validators {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// maxDigits bounds the numbers here: an IBAN has at most 34 characters.
const maxDigits = 40

// compact returns b in upper case without spaces and hyphens, or false when
// more than maxDigits remain.
func compact(dst *[maxDigits]byte, b []byte) ([]byte, bool) {
	n := 0
	for _, c := range b {
		if c == ' ' || c == '-' {
			continue
		}
		if n == maxDigits {
			return nil, false
		}
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		dst[n] = c
		n++
	}
	return dst[:n], true
}

// Luhn reports whether the digits of b, without spaces and hyphens, end in the
// check digit of ISO/IEC 7812-1. A number of one repeated digit is none.
func Luhn(b []byte) bool {
	var buf [maxDigits]byte
	d, ok := compact(&buf, b)
	if !ok || len(d) < 2 || !allDigits(d) || allSame(d) {
		return false
	}
	return luhnSum(d)%10 == 0
}

// luhnSum is the weighted sum of the digits, the last of which is the check
// digit.
func luhnSum(d []byte) int {
	sum := 0
	for i, c := range d {
		n := int(c - '0')
		if (len(d)-i)%2 == 0 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum
}

// provinces are the first two digits of GB/T 2260 region codes, with 81 to 83
// for residence permits of Hong Kong, Macao and Taiwan, and 91 for foreigners.
var provinces = func() (p [100]bool) {
	for _, n := range []int{
		11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46,
		50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83, 91,
	} {
		p[n] = true
	}
	return p
}()

// isRegion reports whether d begins with a region code: a province, and a
// prefecture and a county that may exist (00 stands for none).
func isRegion(d []byte) bool {
	return len(d) >= 6 && allDigits(d[:6]) && provinces[two(d)] && two(d[2:]) <= 90
}

// ResidentID reports whether b is a citizen's identity number of GB 11643-1999:
// region, date of birth, sequence, and the check character of ISO 7064 MOD 11-2
// (X or x for ten).
func ResidentID(b []byte) bool {
	var buf [maxDigits]byte
	d, ok := compact(&buf, b)
	if !ok || len(d) != 18 || !allDigits(d[:17]) || !isRegion(d) || two(d[4:]) == 0 {
		return false
	}
	if year := two(d[6:])*100 + two(d[8:]); !isDate(year, two(d[10:]), two(d[12:])) {
		return false
	}
	return gb11643(d[:17]) == d[17]
}

// gb11643 returns the check character of 17 digits.
func gb11643(d []byte) byte {
	sum, weight := 0, 2 // weights are powers of two modulo 11, from the right
	for _, c := range slices.Backward(d) {
		sum += int(c-'0') * weight
		weight = weight * 2 % 11
	}
	return "10X98765432"[sum%11]
}

// residentID15 reports whether b may be an identity number as they were until
// 1999: without a century and without a check character.
func residentID15(b []byte) bool {
	return len(b) == 15 && allDigits(b) && isRegion(b) && two(b[4:]) != 0 && isDate(1900+two(b[6:]), two(b[8:]), two(b[10:]))
}

// isDate reports whether somebody may have been born then.
func isDate(year, month, day int) bool {
	if year < 1880 || year > 2049 || month < 1 || month > 12 || day < 1 {
		return false
	}
	days := []int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		days = 29
	}
	return day <= days
}

// usccAlphabet are the values 0 to 30 of GB 32100-2015: no I, O, S, V, Z.
const usccAlphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"

// usccKinds are the registering authority and the kind of body, the first two
// characters.
var usccKinds = strings.Fields("11 12 13 19 21 29 31 32 33 34 35 39 41 49 51 52 53 54 59 61 62 69 71 72 79 81 89 91 92 93 A1 A9 N1 N2 N3 N9 Y1")

// SocialCredit reports whether b is a unified social credit code of
// GB 32100-2015: kind, region, and the check character modulo 31.
func SocialCredit(b []byte) bool {
	if len(b) != 18 || !slices.Contains(usccKinds, string(b[:2])) || !isRegion(b[2:]) {
		return false
	}
	check, ok := usccCheck(b[:17])
	return ok && check == b[17]
}

// usccCheck returns the check character of 17 characters.
func usccCheck(b []byte) (byte, bool) {
	sum, weight := 0, 1
	for _, c := range b {
		v := strings.IndexByte(usccAlphabet, c)
		if v < 0 {
			return 0, false
		}
		sum += v * weight
		weight = weight * 3 % 31
	}
	return usccAlphabet[(31-sum%31)%31], true
}

// ibanLengths are the countries of the IBAN registry (SWIFT, release 99) and
// how long their numbers are.
var ibanLengths = map[string]int{
	"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28,
	"CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
	"FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
	"IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20,
	"LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18,
	"NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31,
	"SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29,
	"VA": 22, "VG": 24, "XK": 20, "YE": 30,
}

// IBAN reports whether b is an international bank account number of ISO 13616:
// a country with its length, and a remainder of 1 modulo 97.
func IBAN(b []byte) bool {
	var buf [maxDigits]byte
	d, ok := compact(&buf, b)
	if !ok || len(d) < 15 || ibanLengths[string(d[:2])] != len(d) || !allDigits(d[2:4]) {
		return false
	}
	return ibanRest(d) == 1
}

// ibanRest is the number modulo 97, the first four characters moved to the end.
func ibanRest(d []byte) int {
	rest := 0
	for i := range d {
		c := d[(i+4)%len(d)]
		switch {
		case c >= '0' && c <= '9':
			rest = (rest*10 + int(c-'0')) % 97
		case c >= 'A' && c <= 'Z':
			rest = (rest*100 + int(c-'A') + 10) % 97
		default:
			return -1
		}
	}
	return rest
}

// A network is a range of issuer numbers (ISO/IEC 7812) and the lengths its
// cards have.
type network struct {
	from, to int // the first four digits
	lengths  []int
	usual    []int // lengths that need no other hint
}

var networks = []network{
	{4000, 4999, []int{13, 16, 19}, []int{16}},             // Visa
	{5100, 5599, []int{16}, []int{16}},                     // Mastercard
	{2221, 2720, []int{16}, nil},                           // Mastercard; too many numbers begin like that
	{3400, 3499, []int{15}, nil},                           // American Express
	{3700, 3799, []int{15}, nil},                           // American Express
	{6011, 6011, []int{16, 17, 18, 19}, []int{16}},         // Discover
	{6440, 6599, []int{16, 17, 18, 19}, []int{16}},         // Discover
	{3528, 3589, []int{16, 17, 18, 19}, []int{16}},         // JCB
	{3000, 3059, []int{14, 16}, nil},                       // Diners Club
	{3600, 3699, []int{14, 16}, nil},                       // Diners Club
	{3800, 3999, []int{14, 16}, nil},                       // Diners Club
	{2200, 2204, []int{16}, nil},                           // Mir
	{6200, 6299, []int{16, 17, 18, 19}, []int{16, 18, 19}}, // UnionPay
	{8100, 8171, []int{16, 17, 18, 19}, nil},               // UnionPay
}

// Card reports whether b is the number of a payment card that needs no other
// hint: an issuer's range, the length usual there, and the check digit.
func Card(b []byte) bool { return card(b, func(n network) []int { return n.usual }) }

// cardAnyLength is [Card] with every length the issuers use.
func cardAnyLength(b []byte) bool { return card(b, func(n network) []int { return n.lengths }) }

func card(b []byte, lengths func(network) []int) bool {
	var buf [maxDigits]byte
	d, ok := compact(&buf, b)
	if !ok || len(d) < 13 || !allDigits(d) || !evenGroups(b) {
		return false
	}
	first := two(d)*100 + two(d[2:])
	return slices.ContainsFunc(networks, func(n network) bool {
		return first >= n.from && first <= n.to && slices.Contains(lengths(n), len(d))
	}) && Luhn(d)
}

// unionPay reports whether b is a card of a Chinese bank.
func unionPay(b []byte) bool {
	return bytes.HasPrefix(b, []byte("62")) && cardAnyLength(b)
}

// evenGroups reports whether the groups of a written number are those of a
// card: none, fours with a shorter last one, or American Express' 4-6-5. It
// keeps rows of numbers apart.
func evenGroups(b []byte) bool {
	if !bytes.ContainsAny(b, " -") {
		return true
	}
	if bytes.IndexByte(b, ' ') >= 0 && bytes.IndexByte(b, '-') >= 0 {
		return false
	}
	groups := bytes.FieldsFunc(b, func(r rune) bool { return r == ' ' || r == '-' })
	if len(groups) == 2 {
		return len(groups[0]) == 6 // BIN and the rest, as Chinese banks print it
	}
	if len(groups) == 3 {
		return len(groups[0]) == 4 && len(groups[1]) == 6 && len(groups[2]) <= 5
	}
	for i, g := range groups {
		if i < len(groups)-1 && len(g) != 4 || len(g) > 4 {
			return false
		}
	}
	return true
}

// mobile reports whether b is a mobile number of mainland China in a block
// that the ministry has assigned. A bare number that is a multiple of 64 KiB
// is taken for a size in bytes: one real number in 65,536 is missed, and the
// memory of every graphics card is not a person.
func mobile(b []byte) bool {
	var buf [maxDigits]byte
	d, ok := compact(&buf, b)
	if !ok {
		return false
	}
	bare := len(b) == 11
	d = bytes.TrimPrefix(d, []byte("+"))
	d = bytes.TrimPrefix(d, []byte("00"))
	if len(d) == 13 {
		d = bytes.TrimPrefix(d, []byte("86"))
	}
	if len(d) != 11 || !allDigits(d) || d[0] != '1' || allSame(d[3:]) && d[3] == '0' {
		return false
	}
	var third string
	switch d[1] {
	case '3', '8':
		third = "0123456789"
	case '4':
		third = "01456789"
	case '5':
		third = "012356789"
	case '6':
		third = "2567"
	case '7':
		third = "012345678"
	case '9':
		third = "012356789"
	}
	if strings.IndexByte(third, d[2]) < 0 {
		return false
	}
	n := 0
	for _, c := range d {
		n = n*10 + int(c-'0')
	}
	return !bare || n%65536 != 0
}

// JWT reports whether b is a JSON Web Token in compact form: three parts (or
// five, encrypted), the first of which is a JSON object with an algorithm.
func JWT(b []byte) bool {
	parts := bytes.Split(b, []byte("."))
	if len(parts) != 3 && len(parts) != 5 {
		return false
	}
	var header map[string]json.RawMessage
	raw, ok := decodeBase64(parts[0])
	if !ok || json.Unmarshal(raw, &header) != nil {
		return false
	}
	_, ok = header["alg"]
	return ok
}

// base64JSON reports whether b is a JSON object or array in base64.
func base64JSON(b []byte) bool {
	raw, ok := decodeBase64(b)
	if !ok {
		return false
	}
	raw = bytes.TrimSpace(raw)
	return len(raw) > 1 && (raw[0] == '{' || raw[0] == '[') && json.Valid(raw)
}

// base64PEM reports whether b is a private key's PEM text in base64. The end
// may be missing.
func base64PEM(b []byte) bool {
	b = bytes.Join(bytes.Fields(b), nil)
	raw, ok := decodeBase64(b[:len(b)/4*4])
	return ok && bytes.Contains(raw, []byte("PRIVATE KEY-----"))
}

// pemBody reports whether a block has something in it: lines of base64, and
// not three dots or a word in angle brackets.
func pemBody(b []byte) bool {
	total, run, letters := 0, 0, 0
	count := func() {
		if run >= 16 && letters < run { // words have no digits, slashes and capitals in such runs
			total += run
		}
		run, letters = 0, 0
	}
	escaped := false
	for _, c := range b {
		switch {
		case escaped: // \n, \r
			escaped = false
			count()
		case c == '\\':
			escaped = true
		case isAlnum(c) || c == '+' || c == '/' || c == '=':
			run++
			if c >= 'a' && c <= 'z' {
				letters++
			}
		default:
			count()
		}
	}
	count()
	return total >= 48
}

// basicAuth reports whether b is user:password in base64, as HTTP's Basic
// scheme wants it.
func basicAuth(b []byte) bool {
	raw, ok := decodeBase64(b)
	if !ok || !utf8.Valid(raw) {
		return false
	}
	user, password, ok := bytes.Cut(raw, []byte(":"))
	return ok && len(user)+len(password) >= 4 && len(password) > 0 && !bytes.ContainsFunc(raw, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// decodeBase64 decodes either alphabet, with or without padding. What is
// longer than a mebibyte is not looked at.
func decodeBase64(b []byte) ([]byte, bool) {
	if len(b) > 1<<20 {
		return nil, false
	}
	b = bytes.TrimRight(b, "=")
	enc := base64.RawStdEncoding
	if bytes.ContainsAny(b, "-_") {
		enc = base64.RawURLEncoding
	}
	out := make([]byte, enc.DecodedLen(len(b)))
	n, err := enc.Decode(out, b)
	return out[:n], err == nil && n > 0
}

// shared is the range that carriers use behind their translators, RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// privateIPv4 reports whether b is an IPv4 address of RFC 1918, RFC 6598 or
// RFC 3927, and no network's own address (x.0.0.0).
func privateIPv4(b []byte) bool {
	a, err := netip.ParseAddr(string(b))
	return err == nil && a.Is4() && (a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)) && !strings.HasSuffix(a.String(), ".0.0.0")
}

// privateIPv6 reports whether b is an IPv6 address of RFC 4193 (fc00::/7) or of
// one link (fe80::/10).
func privateIPv6(b []byte) bool {
	if len(b) > 45 {
		return false
	}
	a, err := netip.ParseAddr(string(b))
	return err == nil && a.Is6() && (a.IsPrivate() || a.IsLinkLocalUnicast())
}

// classes counts the kinds of characters in b: lower case, upper case, digits,
// others.
func classes(b []byte) (kinds int, digit, letter bool) {
	var lower, upper, other bool
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z':
			lower = true
		case isUpper(rune(c)):
			upper = true
		case c >= '0' && c <= '9':
			digit = true
		default:
			other = true
		}
	}
	for _, k := range []bool{lower, upper, digit, other} {
		if k {
			kinds++
		}
	}
	return kinds, digit, lower || upper
}

// strongPassword reports whether b looks chosen as a password rather than
// written as an explanation: three of the four kinds of characters.
func strongPassword(b []byte) bool {
	kinds, digit, letter := classes(b)
	return kinds >= 3 && digit && letter
}

// mixed reports whether b has digits and letters: a random text of 20 letters
// or more almost always has, a name rarely.
func mixed(b []byte) bool {
	_, digit, letter := classes(b)
	return digit && letter
}

// spread reports whether b has digits, or letters of both cases behind its
// first four characters: a random text of 20 letters has, a word has not.
func spread(b []byte) bool {
	if len(b) > 4 {
		b = b[4:]
	}
	var lower, upper bool
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			return true
		case c >= 'a' && c <= 'z':
			lower = true
		case isUpper(rune(c)):
			upper = true
		}
	}
	return lower && upper
}

// random reports whether b looks made by a machine: parts that are no words
// hold ten characters or more, with a digit among them. Words are what names
// in programs are made of: lower, upper or camel case, with digits behind.
func random(b []byte) bool {
	if _, digit, letter := classes(b); !digit || !letter {
		return false
	}
	odd := 0
	dotted := bytes.IndexByte(b, '.') >= 0
	for part := range bytes.FieldsFuncSeq(b, func(r rune) bool { return strings.ContainsRune("._-/:+=", r) }) {
		if !isName(part) && (!dotted || len(part) > 16 || part[0] < 'A') {
			odd += len(part)
		}
	}
	return odd >= 10
}

// isName reports whether a part of an identifier is a word, some words in camel
// case, a number, or words with a number behind.
func isName(part []byte) bool {
	digits, letters, switches, vowels, caps := 0, 0, 0, 0, 0
	for i, c := range part {
		switch {
		case isDigit(c):
			digits++
			if i > 0 && !isDigit(part[i-1]) {
				switches++
			}
		default:
			letters++
			if strings.IndexByte("aeiouyAEIOUY", c) >= 0 {
				vowels++
			}
			if isUpper(rune(c)) && i > 0 && !isUpper(rune(part[i-1])) {
				caps++
			}
		}
	}
	switch {
	case letters == 0:
		return true
	case switches > 1 || digits > 6 || digits > letters:
		return false
	}
	return vowels*6 >= letters && caps*4 <= letters
}

// ssn reports whether b is a social security number that may have been issued:
// no 000, 666 or 9xx area, no 00 group, no 0000 serial.
func ssn(b []byte) bool {
	if len(b) != 11 || b[3] != '-' || b[6] != '-' {
		return false
	}
	area, group, serial := b[:3], b[4:6], b[7:]
	if !allDigits(area) || !allDigits(group) || !allDigits(serial) {
		return false
	}
	return string(area) != "000" && string(area) != "666" && area[0] != '9' && string(group) != "00" && string(serial) != "0000" &&
		string(b) != "123-45-6789" && string(b) != "111-22-3333" && string(b) != "078-05-1120"
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func allSame(b []byte) bool { return len(b) > 0 && bytes.Count(b, b[:1]) == len(b) }

// two is the value of the first two digits.
func two(d []byte) int { return int(d[0]-'0')*10 + int(d[1]-'0') }

func isUpper(r rune) bool { return r >= 'A' && r <= 'Z' }

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
