# Verifies every DKIM signature of messages with Mail::DKIM, without DNS. It knows no Ed25519.
#
# Arguments: a JSON file of records (name: text), and files of messages. Prints a JSON object: file: list of
# [selector, true or the fault].
use strict;
use warnings;
use JSON::PP;
use Mail::DKIM::Verifier;

package Record { sub txtdata { return $_[0]->{text} } sub type { return 'TXT' } sub new { my ($class, $text) = @_; return bless { text => $text }, $class } }

my ($records, @files) = @ARGV;
open my $in, '<', $records or die $!;
my $texts = decode_json(do { local $/; <$in> });
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name) = @_;
        return exists $texts->{$name} ? (Record->new($texts->{$name})) : ();
    };
}
my %found;
for my $file (@files) {
    open my $message, '<:raw', $file or die $!;
    my $verifier = Mail::DKIM::Verifier->new();
    while (my $line = <$message>) {
        $verifier->PRINT($line);
    }
    $verifier->CLOSE;
    $found{$file} = [ map { [ $_->selector, $_->result eq 'pass' ? JSON::PP::true : $_->result_detail ] } $verifier->signatures ];
}
print encode_json(\%found);
