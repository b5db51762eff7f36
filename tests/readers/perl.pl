# Whom Perl's MailTools and Email::Address::XS (which is Dovecot's parser) see in a header: a line of base64 in, a line of
# `s:` and `r:` words out.
use strict;
use warnings;
use MIME::Base64;
use Mail::Address;
use Email::Address::XS qw(parse_email_groups);

my %kind = map({ $_ => "s" } qw(from sender resent-from resent-sender));
$kind{$_} = "r" for qw(to cc bcc resent-to resent-cc resent-bcc apparently-to);

sub whom {
    my ($value) = @_;
    my @found = map { $_->address } Mail::Address->parse($value);
    # MailTools knows no groups: it puts the name of one before its first address.
    s/^[^"\@:]+:// for @found;
    my @groups = parse_email_groups($value);
    while (my ($name, $list) = splice(@groups, 0, 2)) {
        # What is not valid is read all the same, as far as it goes.
        for my $one (@$list) {
            push @found, $one->address, join("\@", grep { defined && length } $one->user, $one->host);
        }
    }
    push @found, map { ($_->address) } Email::Address::XS->parse_bare_address($value);
    return grep { defined && length } @found;
}

while (my $line = <STDIN>) {
    my $header = decode_base64($line);
    $header =~ s/\r\n(?=[ \t])//g;
    my %words;
    for my $field (split /\r\n/, $header) {
        my ($name, $value) = split /[ \t]*:/, $field, 2;
        my $kind = $kind{lc($name // "")} or next;
        $words{"$kind:" . encode_base64($_, "")} = 1 for whom($value);
    }
    print join(" ", sort keys %words), "\n";
}
