# How the demonstration speaks: `. scripts/demo/show.sh yes|no`, for colours or none.

bold="" dim="" blue="" red="" cyan="" plain=""
if [ "$1" = yes ]; then
	bold=$'\e[1m' dim=$'\e[2m' blue=$'\e[1;34m' red=$'\e[1;31m' cyan=$'\e[36m' plain=$'\e[0m'
fi
number=0

step() {
	number=$((number + 1))
	printf '\n%s%d  %s%s\n' "$bold" "$number" "$*" "$plain"
}

note() { printf '   %s%s%s\n' "$dim" "$*" "$plain"; }

paragraph() { painted | sed 's/^/      /'; }

# The tenants' names in their colours; last, because colours would spoil the widths.
painted() {
	sed -E "s/\\bblue\\b/$blue&$plain/g; s/\\bred\\b/$red&$plain/g"
}

row() { printf '      %-13s%-33s%-26s%s\n' "$@" | sed 's/ *$//' | painted; }

command_line() { printf '   %s$ %s%s\n' "$cyan" "$*" "$plain"; }

# Shows a command and what it prints; it must succeed.
shown() {
	command_line "$*"
	local said
	said=$("$@" 2>&1) || fail "$* said:" "$said"
	paragraph <<<"$said"
}

# Of what is shown, the commands and the lines that matter here.
keep() { grep -E "\\$ |$1"; }

fail() {
	printf '\n%sFAILED%s  %s\n' "$red" "$plain" "$1" >&2
	shift
	[ $# -eq 0 ] || printf '%s\n' "$@" >&2
	[ ! -s "$dir/fiefd.log" ] || { echo "The last words of fiefd:" && tail -n 5 "$dir/fiefd.log"; } >&2
	exit 1
}
